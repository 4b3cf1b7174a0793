"""Python in a process of its own, with this checkout's modules."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.test_architecture import ROOT

TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")


def run_python(arguments: Sequence[str], timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` on one thread, which must end well; returns what it said. Raises AssertionError."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=child_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def child_environment() -> dict[str, str]:
    """This process's, with this checkout first and one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
