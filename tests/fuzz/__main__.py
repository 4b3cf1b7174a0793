"""Run a campaign: `python -m tests.fuzz --cases 500 --seed 0 --json report.json`. Exit code 1 if anything was taken wrongly."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import cv2
import torch

from detection.cli.main import COMMANDS, module_name
from detection.files import write_json
from tests.fuzz.campaign import Campaign, Report
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.sandbox import write_sandbox


def main() -> int:
    """Make the sandbox, run the cases, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=sorted(MUTATIONS), default=list(MUTATIONS))
    parser.add_argument("--time-limit", type=float, default=30.0, help="seconds for a command")
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--keep", type=Path, help="keep the folder of the last case there; default: a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process that has used more cannot fork and go on
    cv2.setNumThreads(1)
    for name in COMMANDS:  # what the forked commands need, imported once
        importlib.import_module(module_name(name))
    with tempfile.TemporaryDirectory() as temporary:
        sandbox = Path(temporary) / "sandbox"
        sandbox.mkdir()
        write_sandbox(sandbox)
        campaign = Campaign(sandbox, options.keep or Path(temporary) / "case", options.kinds, options.seed, options.time_limit)
        report = campaign.run(range(options.first, options.first + options.cases), report=print_now)
    print_report(report)
    if options.json is not None:
        write_json(options.json, report.to_dict())
    return 1 if report.findings else 0


def print_now(line: str) -> None:
    """Print a line at once, whatever it holds."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    print(line, flush=True)


def print_report(report: Report) -> None:
    """The table of endings."""
    print(f"{'kind':<20} {'accepted':>9} {'partly':>7} {'refused':>8} {'broken':>7}")
    for kind, counts in report.endings.items():
        row = [counts.get(ending, 0) for ending in ("accepted", "partly", "refused", "broken")]
        print(f"{kind:<20} {row[0]:>9} {row[1]:>7} {row[2]:>8} {row[3]:>7}")
    print(f"{report.cases} cases, {report.commands} commands, {len(report.findings)} findings")
    print_now(f"slowest: {report.slowest:.1f} s, case {report.slowest_case}")


if __name__ == "__main__":
    sys.exit(main())
