"""A process that is told to keep freed memory does not ask the system for it again."""

import subprocess
import sys

import pytest

from tests.test_architecture import ROOT

PROGRAM = """
import resource, sys, torch
from detection.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
else:
    print(False)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(48 * 2**20 // 4)
before = faults()
for _ in range(10):
    torch.ones(48 * 2**20 // 4)
print(faults() - before)
"""


def run(mode: str) -> tuple[bool, int]:
    """Whether it has been told, and the page faults of ten tensors of 48 MiB, one after the other."""
    command = [sys.executable, "-c", PROGRAM, mode]
    told, faults = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return told == "True", int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is Linux's")
def test_freed_memory_is_used_again() -> None:
    told, kept = run("keep")
    if not told:
        pytest.skip("another C library than glibc")
    _, given_back = run("plain")
    # 10 x 48 MiB are 122,880 pages of 4 KiB, or a few hundred of 2 MiB.
    assert kept < 64 < given_back
