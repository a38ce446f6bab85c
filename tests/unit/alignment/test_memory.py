import subprocess
import sys

import pytest

FREED_AND_TAKEN_AGAIN = """
import resource, sys
import torch
from distalign.alignment.memory import retain_freed_memory

def use():
    return len([torch.ones(2**20) for _ in range(64)])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "retain":
    retain_freed_memory()
use()
before = faults()
use()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc's malloc")
def test_freed_memory_is_taken_again_without_the_system() -> None:
    counted = {}
    for how in ("retain", "default"):
        command = [sys.executable, "-c", FREED_AND_TAKEN_AGAIN, how]
        counted[how] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert counted["retain"] < counted["default"] / 20
