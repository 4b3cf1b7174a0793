#!/usr/bin/env python3
"""Write a config that fits a folder of labelled images: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("new")
