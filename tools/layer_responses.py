#!/usr/bin/env python3
"""How strongly the layers of classifiers respond: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("layer-responses")
