#!/usr/bin/env bash
# Make .venv from the hash lock and install the project into it, editable. Called by the Makefile; safe to call again.
# Uses whatever PIP_* settings are in force. `PYTHON=python3.12 make ...` picks an interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly STAMP=${1:?usage: envs/setup.sh STAMP_FILE}
readonly LOCK=envs/requirements.txt
readonly NEEDED_GB=9

fail() { printf 'set-up: %s\n' "$@" >&2; exit 1; }

# A name on the PATH is not enough: pyenv leaves shims for versions that are not active, Debian splits off venv.
usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    local name
    for name in ${PYTHON:-python3.12 python3.11 python3.13 python3 python}; do
        if usable "$name"; then echo "$name"; return; fi
    done
    fail "no usable Python found (looked for: ${PYTHON:-python3.11, python3.12, python3.13 and python3})." \
        "distalign needs Python 3.11, 3.12 or 3.13 with its venv module; 'python3' here is: $(python3 --version 2>&1 || true)" \
        "Install one (Debian, Ubuntu: apt install python3-venv; elsewhere: pyenv, conda, python.org)," \
        "or name it: PYTHON=/path/to/python3.12 make ..."
}

check_disk() {
    local free_gb
    free_gb=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1024 / 1024))
    ((free_gb >= NEEDED_GB)) || fail "the environment needs about $NEEDED_GB GB, and $PWD has $free_gb GB free." \
        "Free some space there, or clone the project onto a larger disk."
}

if ! usable .venv/bin/python; then
    python=$(find_python)
    check_disk
    echo "set-up: making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi

# Both installers unpack gigabytes: keep that on this disk, not on a small /tmp, and remove it at the end.
scratch=$PWD/.venv/scratch
mkdir -p "$scratch"
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch UV_CACHE_DIR=${UV_CACHE_DIR:-$scratch/uv} UV_LINK_MODE=${UV_LINK_MODE:-hardlink} VIRTUAL_ENV=$PWD/.venv
index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$index}}
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi # else uv's own default, which is also pip's
unset PYTHONPATH PIP_REQUIRE_VIRTUALENV

# uv installs in a minute what takes pip two; its own version and hashes stand in the same lock.
quiet=--quiet
if [ -t 2 ]; then quiet=; fi # a person gets to see the progress
echo "set-up: installing the locked environment (once; 1 to 3 minutes)"
sed -n '/^uv==/,/[^\\]$/p' "$LOCK" >"$scratch/uv.txt"
{ .venv/bin/python -m pip install --quiet --require-hashes -r "$scratch/uv.txt" &&
    .venv/bin/python -m uv pip install $quiet --require-hashes -r "$LOCK"; } || {
    echo "set-up: uv did not succeed, trying pip" >&2
    rm -rf "$scratch/uv"
    .venv/bin/python -m pip install $quiet --require-hashes --no-deps -r "$LOCK"
} || fail "the packages could not be installed: see the messages above (network? disk?). Run the same command again to go on."

# setuptools is in the lock, so nothing is fetched here.
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .

# The first import of these compiles them: seconds here, once, or in every job where bytecode may not be written.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -W ignore - <<'PYTHON'
import matplotlib.pyplot, open_clip, pandas, peft, pyarrow.parquet, pydantic, pytest, scipy.stats, snakemake.cli, torchvision
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from transformers import CLIPTextModel, CLIPTokenizer, Dinov2Model
PYTHON

rm -f .venv/lock-*
touch "$STAMP"
echo "set-up: done"
