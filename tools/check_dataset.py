#!/usr/bin/env python3
"""Report all faults of a data set at once, and draw its ground truth: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("check-dataset")
