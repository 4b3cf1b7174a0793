#!/usr/bin/env python3
"""The first half hour on a lent GPU, the most valuable first: see `--help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `tools` is in no installed package
    from tools.benchmarks.gpu_plan import run_command

    run_command()
