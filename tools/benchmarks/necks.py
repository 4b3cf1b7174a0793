"""C4 against a feature pyramid, and what a mask head adds: one config's detectors, trained on the same images, equally long.

The config is C4's; the pyramid has its own anchors and cells (`--pyramid`). Each training and each evaluation runs in a process
of its own, whose peak memory is the row's. Writes a file of docs/results after each training; a finished one is not repeated.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

from detection import evaluate, load_detector
from detection.config import Config
from detection.data import load_split
from detection.engine.log import peak_memory_mb
from detection.files import write_json
from detection.inference.evaluate import EvaluationResult, evaluate_detections
from tools.benchmarks.trainings import build_parser, comparison, figure, read_experiment, run_training

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")

METRICS = ("AP", "AP50", "voc_area", "APs", "APm", "APl")
PYRAMID = ("rpn.anchor_sizes=[16, 32, 64, 128, 256]", "roi.pool_size=7")
MEASURED = "measured.json"
"""The figures of a finished training, in its folder."""


class Training(NamedTuple):
    """A row of the table."""

    title: str
    folder: str
    pyramid: bool
    masks: bool


TRAININGS = (
    Training("C4", "c4", False, False),
    Training("pyramid", "pyramid", True, False),
    Training("C4 with masks", "c4_masks", False, True),
    Training("pyramid with masks", "pyramid_masks", True, True),
)


def settings_of(training: Training, pyramid: Sequence[str]) -> list[str]:
    """What a row changes of the config."""
    neck = ["model.neck=fpn", *pyramid] if training.pyramid else ["model.neck=none"]
    return [*neck, f"model.mask={str(training.masks).lower()}"]


def measure(config: Config, training: Training, settings: Sequence[str], threads: int) -> dict[str, float]:
    """The figures of a row: of its folder where it is finished, else after its training."""
    written = config.output_dir / training.folder / MEASURED
    if not written.exists():
        trained = in_own_process(_train, config, training, settings, threads)
        tested = in_own_process(_test, config, training, threads)
        write_json(written, tested | trained)
    found: dict[str, float] = json.loads(written.read_text(encoding="utf-8"))
    return found


def in_own_process(function: Callable[Arguments, Found], *args: Arguments.args, **options: Arguments.kwargs) -> Found:
    """Call a module's function in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **options).result()


def _train(config: Config, training: Training, settings: Sequence[str], threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    last = run_training(config, training.folder, settings, load_split(config.data, "train", masks=training.masks))
    return {
        "training, s/image": figure(seconds_per_image(last.parent / "metrics.jsonl")),
        "training, MB": round(peak_memory_mb(torch.device("cpu"))),
    }


def seconds_per_image(log: Path) -> float:
    """The median over the lines of a run's log that tell the speed: loading, forward, backward and the optimizer's step."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return statistics.median(1 / line["images_per_second"] for line in lines if line.get("images_per_second"))


def _test(config: Config, training: Training, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    model = load_detector(config.output_dir / training.folder / "last.pt")
    result = evaluate(model, load_split(config.data, "val", masks=training.masks))
    seconds = {} if result.latency is None else {"test, s/image": figure(result.latency.seconds_per_image)}
    boxes = {key: figure(result.metrics[key]) for key in METRICS}
    return boxes | mask_metrics(result) | seconds | {"test, MB": round(peak_memory_mb(torch.device("cpu")))}


def mask_metrics(result: EvaluationResult) -> dict[str, float]:
    """The metrics of masks on the images that have some; none where nothing predicts masks."""
    if all(found.masks is None for found in result.detections.values()):
        return {}
    annotated = [record for record in result.dataset.records if record.masks is not None]
    kept = {record.image_id: result.detections[record.image_id] for record in annotated}
    metrics = evaluate_detections(replace(result.dataset, records=annotated), kept).metrics
    return {key: figure(value) for key, value in metrics.items() if "mask" in key}


def as_result(config: Config, found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What was found so far as a file of docs/results holds it."""
    columns = list(dict.fromkeys(column for row in found.values() for column in row))
    rows: dict[str, dict[str, Any]] = {name: {column: row.get(column, "") for column in columns} for name, row in found.items()}
    train = config.train
    return comparison(
        config,
        "necks",
        "C4, a pyramid, masks",
        f"{config.model.backbone} after {train.steps} steps of {train.batch_size} images",
        rows,
        notes=["Memory is the greatest of a process that does nothing else; times are of this machine with the other figures."],
    )


def main() -> None:
    """Train, evaluate, and write what was found after each training."""
    parser = build_parser(__doc__)
    parser.add_argument("--mask", action="store_true", help="train both with masks as well")
    parser.add_argument(
        "--pyramid",
        nargs="+",
        default=PYRAMID,
        metavar="key=value",
        help=f"the pyramid's settings; default: {' '.join(PYRAMID)}",
    )
    options = parser.parse_intermixed_args()
    config = read_experiment(options)
    found: dict[str, dict[str, float]] = {}
    for each in TRAININGS if options.mask else TRAININGS[:2]:
        found[each.title] = measure(config, each, settings_of(each, options.pyramid), options.threads)
        print(each.title, found[each.title], flush=True)
        write_json(options.json, as_result(config, found))


if __name__ == "__main__":
    main()
