#!/usr/bin/env python3
"""Training curves of several runs in one plot: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("plot-runs")
