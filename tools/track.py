#!/usr/bin/env python3
"""Follow objects through videos: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("track")
