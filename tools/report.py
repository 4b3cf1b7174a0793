#!/usr/bin/env python3
"""What is wrong with a detector, on one page: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("report")
