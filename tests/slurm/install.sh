#!/usr/bin/env bash
# Installs Debian's SLURM for tests/slurm where it is missing, or says how. Starts nothing, writes no configuration.
set -euo pipefail
packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
PATH=$PATH:/usr/sbin:/sbin

missing() {
    for program in munged slurmctld slurmd sbatch srun squeue sinfo scontrol scancel; do
        command -v "$program" >/dev/null || return 0
    done
    return 1
}

if missing; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing ${packages[*]}"
        # No daemon may start by itself: the tests start theirs, with a configuration of their own.
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "${packages[@]}"; } >/dev/null || true
    fi
fi
if missing; then
    echo "SLURM is not installed here. On Debian or Ubuntu: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "The tests start munged, slurmctld and slurmd in a folder of their own, and need to be root for that: sudo make test-slurm" >&2
    exit 1
fi
