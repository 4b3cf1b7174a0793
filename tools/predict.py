#!/usr/bin/env python3
"""Label images by what a detector finds, for a labelling program to import: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("predict")
