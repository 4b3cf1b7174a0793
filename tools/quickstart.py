#!/usr/bin/env python3
"""Pre-train, fine-tune, evaluate and draw on the sample data: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("quickstart")
