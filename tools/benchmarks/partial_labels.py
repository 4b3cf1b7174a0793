"""What `data.partial_labels` does where images do not know all classes: a detector trained with it and without it.

Of each training image of a fully annotated data set half of the classes, for each image others, are hidden: their objects are
taken away, and the image knows the other classes alone. The validation images keep everything. Writes a file of docs/results
after each training; one that is there already is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from detection import evaluate, load_detector
from detection.config import Config
from detection.data import Dataset, load_split
from detection.data.records import count_classes
from detection.files import write_json
from detection.inference.evaluate import EvaluationResult
from tools.benchmarks.trainings import build_parser, comparison, figure, read_experiment, run_training

METRICS = ("AP", "AP50", "voc_area")
CLASS_METRICS = ("AP", "voc_area")


class Training(NamedTuple):
    """A row of the table."""

    title: str
    folder: str
    partial_labels: bool  # of the config
    hidden: bool  # whether half of the classes are


TRAININGS = (
    Training("unknown classes left out", "left_out", True, True),
    Training("unknown classes as background", "background", False, True),
    Training("nothing hidden", "complete", True, False),
)


def hide_classes(dataset: Dataset, share: float, seed: int) -> Dataset:
    """The data set without the objects of a `share` of its K classes, for each image others, which it then does not know.

    Which ones is a function of the image's place and the seed. An image that did not know a class before does not afterwards.
    """
    num_classes = len(dataset.class_names)
    generator = torch.Generator().manual_seed(seed)
    records = []
    for record in dataset.records:
        known = torch.ones(num_classes, dtype=torch.bool) if record.known is None else record.known.clone()
        known[torch.randperm(num_classes, generator=generator)[: round(share * num_classes)]] = False
        records.append(replace(record.select(known[record.labels]), known=known))
    return replace(dataset, records=records)


def measure(config: Config, training: Training, datasets: Mapping[bool, Dataset], validation: Dataset) -> EvaluationResult:
    """The detector after its training in a folder of its own, on the validation images. `datasets`: hidden or not -> images."""
    settings = [f"data.partial_labels={str(training.partial_labels).lower()}"]
    return evaluate(load_detector(run_training(config, training.folder, settings, datasets[training.hidden])), validation)


def as_result(
    config: Config,
    datasets: Mapping[bool, Dataset],
    validation: Dataset,
    share: float,
    found: Mapping[Training, EvaluationResult],
) -> dict[str, Any]:
    """What was found so far as a file of docs/results holds it."""
    names, train = validation.class_names, config.train
    counts, left = (count_classes(datasets[hidden].records, names) for hidden in (False, True))
    columns = [f"{metric}, {each.title}" for each in found for metric in CLASS_METRICS]
    rows = [
        [
            name,
            counts[name],
            left[name],
            *(figure(each.class_ap[metric].get(name, -1)) for each in found.values() for metric in CLASS_METRICS),
        ]
        for name in names
        if counts[name]
    ]
    return comparison(
        config,
        "partial_labels",
        "Partial labels",
        f"Trained on annotations that know {1 - share:.0%} of the classes of each image: {len(validation)} fully annotated "
        f"images after {train.steps} steps of {train.batch_size} of {len(datasets[True])} images",
        {each.title: {key: figure(result.metrics[key]) for key in METRICS} for each, result in found.items()},
        notes=[f"{sum(left.values())} of {sum(counts.values())} objects are left to the trainings with hidden classes."],
        tables=[{"title": "Each class", "columns": ["class", "objects", "left", *columns], "rows": rows}],
    )


def main() -> None:
    """Train, evaluate, and write what was found after each training."""
    parser = build_parser(__doc__)
    parser.add_argument("--share", type=float, default=0.5, metavar="X", help="of the classes that is hidden; default: 0.5")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is hidden; default: 0")
    parser.add_argument("--complete", action="store_true", help="train with nothing hidden as well")
    options = parser.parse_intermixed_args()
    config = read_experiment(options)
    training, validation = load_split(config.data, "train"), load_split(config.data, "val")
    datasets = {False: training, True: hide_classes(training, options.share, options.seed)}
    found: dict[Training, EvaluationResult] = {}
    for each in TRAININGS if options.complete else TRAININGS[:2]:
        found[each] = measure(config, each, datasets, validation)
        result = as_result(config, datasets, validation, options.share, found)
        print(each.title, result["rows"][each.title], flush=True)
        write_json(options.json, result)


if __name__ == "__main__":
    main()
