#!/usr/bin/env python3
"""Convert the weights of another project into a checkpoint of this one: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("convert-weights")
