#!/usr/bin/env python3
"""Evaluate by Pascal VOC's average precision: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("eval-voc")
