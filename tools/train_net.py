#!/usr/bin/env python3
"""Train a detector: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("train")
