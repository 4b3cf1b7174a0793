#!/usr/bin/env python3
"""Top-1 and top-5 error of a classifier: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("eval-classifier")
