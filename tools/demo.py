#!/usr/bin/env python3
"""Draw what a detector finds in images, folders, videos or a camera: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("demo")
