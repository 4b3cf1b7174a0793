#!/usr/bin/env python3
"""Write a data set as COCO, YOLO or Pascal VOC: see `--help`."""

from detection.cli.main import run_command

if __name__ == "__main__":
    run_command("import")
