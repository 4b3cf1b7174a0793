#!/usr/bin/env python3
"""Train an ImageNet localiser: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("train-loc")
