#!/usr/bin/env python3
"""Export a detector or a backbone to ONNX or torch.export: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("export")
