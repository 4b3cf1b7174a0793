#!/usr/bin/env python3
"""Evaluate by COCO's twelve numbers: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("eval-coco")
