"""Several detectors trained and evaluated on the same images, as a table for docs/results.

Each training has a folder of its own below the config's `output_dir`; one that is stopped goes on, one that is finished is not
repeated.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from detection import train_detector
from detection.analysis.provenance import current_provenance
from detection.config import Config, load_config, override_config
from detection.data import Dataset
from detection.data.settle import settle_config
from detection.engine.precision import resolve_precision

LAST = "last.pt"
PREDEFINED = ("data.val=[]", "data.test=[]")
"""Settings of every training: it is evaluated once, when it has ended."""


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that such a tool has in any case; others may be added."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a detector's experiment with data.val")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. train.steps=1000")
    return parser


def read_experiment(options: argparse.Namespace) -> Config:
    """The config that the options name, with its classes known, and as many threads as they ask for."""
    torch.set_num_threads(options.threads)
    return settle_config(load_config(options.config, options.overrides))


def run_training(config: Config, folder: str, settings: Sequence[str], training: Dataset) -> Path:
    """Train with other settings, "dotted.key=value", in a folder of its own: the last checkpoint.

    Raises SystemExit where a signal stopped the training: it can be gone on with, and is not to be measured.
    """
    output = config.output_dir / folder
    own = override_config(config, [*PREDEFINED, *settings, f"output_dir={output}"])
    result = train_detector(own, training=training, resume=(output / LAST).exists(), tell=print)
    if result.signal is not None:
        raise SystemExit(128 + result.signal)
    return output / LAST


def comparison(
    config: Config,
    module: str,
    heading: str,
    title: str,
    rows: Mapping[str, Mapping[str, float]],
    *,
    notes: Sequence[str] = (),
    tables: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A file of docs/results: a row for each training, its figures by the columns' names.

    `module`: what was called. `pictures`: their titles and their files, relative to docs/.
    """
    precision = resolve_precision(config.train.precision, "cpu")
    return {
        "kind": "comparison",
        "heading": heading,
        "title": title,
        "columns": list(dict.fromkeys(column for row in rows.values() for column in row)),
        "rows": {name: dict(row) for name, row in rows.items()},
        **current_provenance(torch.device("cpu"), precision).as_json(),
        "commands": [shlex.join(["python", "-m", f"tools.benchmarks.{module}", *sys.argv[1:]])],
        "notes": list(notes),
        "tables": list(tables),
        "pictures": dict(pictures or {}),
    }


def figure(value: float) -> float:
    """A number as the tables show it."""
    return round(value, 4)
