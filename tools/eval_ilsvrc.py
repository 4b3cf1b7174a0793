#!/usr/bin/env python3
"""Evaluate detectors and submissions by the rules of ImageNet DET and CLS-LOC: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("eval-ilsvrc")
