#!/usr/bin/env python3
"""Measure each improvement of the paper's detection system: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("ablation")
