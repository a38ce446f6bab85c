"""Set-up: what it says when a machine cannot do it, the lock, the conda form, and what git ignores."""

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, in a folder with a blank in its name."""
    copy = tmp_path / "a clone"
    (copy / "envs").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "envs/setup.sh", "envs/requirements.txt"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def make_setup(checkout: Path, programs: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`make setup` with `programs` (name -> shell script) ahead on the PATH."""
    tools = checkout / "tools"
    tools.mkdir()
    for name, script in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    environment.pop("PYTHON", None)
    command = ["make", "-C", str(checkout), "setup"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


TOO_OLD = 'case "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac'


def test_too_old_a_python_is_named_with_a_way_out(checkout: Path) -> None:
    names = ("python3.11", "python3.12", "python3.13", "python3", "python")
    result = make_setup(checkout, dict.fromkeys(names, TOO_OLD))
    assert result.returncode != 0
    assert "Python 3.11, 3.12 or 3.13" in result.stderr
    assert "Python 3.9.2" in result.stderr
    assert "PYTHON=/path/to/python3.12" in result.stderr
    assert not (checkout / ".venv").exists()


def test_full_disk_is_noticed_before_anything_is_made(checkout: Path) -> None:
    table = "echo Filesystem 1024-blocks Used Available Capacity Mounted; echo /dev/disk 100 1 3000000 97% /"
    result = make_setup(checkout, {"df": table, "python3.11": "exit 0"})
    assert result.returncode != 0
    assert "needs about 9 GB" in result.stderr
    assert "2 GB free" in result.stderr
    assert not (checkout / ".venv").exists()


def test_setup_is_done_once_for_a_lock(checkout: Path) -> None:
    stamp = subprocess.run(
        ["make", "-pn", "-C", str(checkout), "setup"], capture_output=True, text=True, check=False
    ).stdout
    name = re.search(r"^STAMP := (\.venv/lock-[0-9a-f]{16})$", stamp, flags=re.MULTILINE)
    assert name is not None
    (checkout / ".venv").mkdir()
    (checkout / name[1]).touch()
    assert make_setup(checkout, {"df": "exit 1", "python3.11": "exit 1"}).returncode == 0
    with (checkout / "envs/requirements.txt").open("a") as lock:
        lock.write("# changed\n")
    shutil.rmtree(checkout / "tools")
    assert make_setup(checkout, {"df": "exit 1", **dict.fromkeys(("python3.11", "python3"), TOO_OLD)}).returncode != 0


def lock_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "envs/lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lock_has_hashes_and_no_hosts() -> None:
    lock = (ROOT / "envs/requirements.txt").read_text()
    assert "://" not in lock
    requirements = re.split(r"\n(?=\S)", lock.strip())
    assert len(requirements) > 100
    assert all(re.match(r"[\w.-]+==[\w.!+-]+", line) and "--hash=sha256:" in line for line in requirements)


def test_lock_holds_every_requirement() -> None:
    locked = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", _read("requirements.txt"), re.M)}
    wanted = {
        name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z][\w.-]*)", _read("requirements.in"), re.M)
    }
    assert wanted <= locked
    assert {"uv", "setuptools"} <= locked


def test_conda_form_is_the_lock() -> None:
    assert _read("distalign.yaml") == lock_module().conda_environment(_read("requirements.txt"))


def test_version_is_said_once() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize(
    "path", ["lib/distalign/new.py", "resources/miniworld/new.safetensors", "lib/distalign/results/a.py"]
)
def test_git_keeps_library_and_resources(path: str) -> None:
    check = subprocess.run(
        ["git", "check-ignore", "--no-index", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert check.returncode == 1, f"{path} is ignored"


@pytest.mark.parametrize(
    "path", ["results/mini/backbone/x", ".venv/bin/python", ".snakemake/log/x", "lib/distalign.egg-info/x"]
)
def test_git_ignores_what_is_made(path: str) -> None:
    check = subprocess.run(
        ["git", "check-ignore", "--no-index", path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, f"{path} is not ignored"


def _read(name: str) -> str:
    return (ROOT / "envs" / name).read_text()
