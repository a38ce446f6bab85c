"""Write the hash lock and the conda form of the environment from `requirements.in`.

Versions already locked are kept as long as `requirements.in` allows them; `--upgrade` takes the newest.
The lock names no host, so it installs from whatever index pip or uv is set to use.
"""

import re
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).resolve().parent
LOCK = ENVS / "requirements.txt"
CONDA = ENVS / "distalign.yaml"

CONDA_HEADER = """\
# The environment of requirements.txt for `snakemake --sdm conda`; written by `make lock`, not by hand.
# The library itself is found through the Snakefile, which puts lib/ on the path of every job.
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.12
  - pip
  - pip:
"""


def conda_environment(lock: str) -> str:
    """The conda YAML that pins what `lock` pins (pip's hash mode cannot be mixed into a conda file)."""
    pins = re.findall(r"^([A-Za-z0-9][^ \n]*==[^\\\n]+?)\s*\\?$", lock, flags=re.MULTILINE)
    return CONDA_HEADER + "".join(f'      - "{pin.strip()}"\n' for pin in pins)


def main() -> None:
    """Compile the lock with uv, for Python 3.11 to 3.13, then derive the conda file from it."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--quiet", "--output-file", LOCK.name]
    subprocess.run([*command, *sys.argv[1:], "requirements.in"], cwd=ENVS, check=True)
    CONDA.write_text(conda_environment(LOCK.read_text()))


if __name__ == "__main__":
    main()
