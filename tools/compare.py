#!/usr/bin/env python3
"""Which of several detectors is better, and whether that is more than chance: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("compare")
