#!/usr/bin/env python3
"""Divide labelled images into those to train on and those to evaluate on: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("split")
