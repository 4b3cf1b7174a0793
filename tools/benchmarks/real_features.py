"""What a detector learns from real features, and what of the recipe it needs: trainings that differ in one thing each.

The config is that of the first row. Each row is trained with several seeds, on the same images and equally long: with the
paper's recipe, from random weights, by torchvision, with norms that learn, with fewer or more frozen stages, with a head that
learns from its own boxes. A training that is finished is not repeated; the file of docs/results is written after each, from all
that are there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from backbones import Backbone, build_backbone
from backbones.norm import recompute_bn_statistics
from backbones.weights.format import CheckpointMetadata
from detection import evaluate, load_detector
from detection.allocator import keep_freed_memory
from detection.analysis.curves import plot_curves, select_curves
from detection.config import Config, override_config
from detection.data import Dataset, load_split
from detection.data.loader import test_loader, train_loader
from detection.engine.train import train
from detection.files import write_json
from detection.inference.detector import build_detector
from detection.inference.evaluate import EvaluationResult, evaluate_detections
from detection.weights.checkpoint import (
    detector_metadata,
    initialise_detector,
    read_checkpoint,
    write_checkpoint,
)
from tools.benchmarks.necks import seconds_per_image
from tools.benchmarks.reference import TorchvisionDetector
from tools.benchmarks.trainings import LAST, PREDEFINED, build_parser, comparison, figure, read_experiment, run_training

METRICS = ("AP", "AP50", "voc_area")
IMPROVED_METRICS = ("AP", "AP50", "AP75")
MEASURED, IMPROVED = "measured.json", "improved.json"
"""The figures of a finished training, and those with box refinement, in its folder."""
NORM_BATCHES = 50
"""So many batches of the training images tell the statistics of the norms."""

Weights = Literal["given", "none", "unfolded", "recomputed"]


class Training(NamedTuple):
    """A row of the table: what it changes of the config, where its backbone starts, and who trains it."""

    title: str
    folder: str
    settings: tuple[str, ...] = ()
    weights: Weights = "given"
    torchvision: bool = False


PAPER = (
    "roi.pooling=max",
    "roi.negative_iou=[0.1,0.5]",
    "rpn.ignore_straddling=true",
    "rpn.min_size=16",
    "train.schedule=step",
    "train.clip_norm=null",
    "test.nms_threshold=0.3",
)
"""What the paper does otherwise, beside sizes and numbers of regions."""

TRAININGS = (
    Training("the config", "config"),
    Training("the paper's recipe", "paper", PAPER),
    Training("from random weights", "random", ("model.norm=bn", "model.freeze_stages=0"), "none"),
    Training("torchvision's detector", "torchvision", (), torchvision=True),
    Training("norms learn", "norms_learn", ("model.norm=bn",), "unfolded"),
    Training("norms frozen with statistics of these images", "norms_recomputed", (), "recomputed"),
    Training("conv1 frozen", "freeze_1", ("model.freeze_stages=1",)),
    Training("conv1 to conv3_x frozen", "freeze_3", ("model.freeze_stages=3",)),
    Training("learns from refined boxes from IoU 0.5 on", "refined_5", ("roi.refined_iou=0.5",)),
    Training("learns from refined boxes from IoU 0.6 on", "refined_6", ("roi.refined_iou=0.6",)),
    Training("global context", "context", ("roi.context=true",)),
    # Another training than the first only where the CPU has bf16, which it then takes by itself.
    Training("in float32", "fp32", ("train.precision=fp32",)),
)

DRAWN = ("config", "paper", "random", "torchvision", "norms_learn", "norms_recomputed")
"""The rows whose losses are drawn: those of the others would lie on that of the config."""
REFINED = ("config", "refined_5", "refined_6")
"""The rows that are tested with box refinement, too."""
ONE_PASS = "test.refinement_passes=1"
IMPROVEMENTS = {
    "none": (),
    "refinement": (ONE_PASS,),
    "refinement, scores of 0.05 to 0.8": (ONE_PASS, "test.refine_scores=[0.05,0.8]"),
    "refinement, mean of the passes": (ONE_PASS, "test.refinement=average"),
    "voting": ("test.voting=true",),
    "refinement and voting": (ONE_PASS, "test.voting=true"),
    "refinement, mean of the passes, and voting": (ONE_PASS, "test.refinement=average", "test.voting=true"),
}
"""Settings of the test that are measured on finished detectors with `--improvements`."""


def settings_of(training: Training, seed: int, steps: int) -> list[str]:
    """What a training of a row changes of the config."""
    drops = [f"train.lr_drops=[{steps * 2 // 3}]"] if "train.schedule=step" in training.settings else []
    return [*training.settings, *drops, f"train.seed={seed}"]


def measure(config: Config, training: Training, seed: int, datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """The figures of one training: those of its folder if it is finished, else after training and evaluating."""
    folder = f"{training.folder}_{seed}"
    written = config.output_dir / folder / MEASURED
    if not written.exists():
        settings = settings_of(training, seed, config.train.steps)
        weights = starting_weights(config, training.weights, datasets["train"])
        settings.append(f"model.weights={'null' if weights is None else weights}")
        run = train_torchvision if training.torchvision else train_ours
        write_json(written, figures_of(run(config, folder, settings, datasets), config.output_dir / folder))
    found: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return found


def train_ours(config: Config, folder: str, settings: Sequence[str], datasets: Mapping[str, Dataset]) -> EvaluationResult:
    """Our detector after its training."""
    return evaluate(load_detector(run_training(config, folder, settings, datasets["train"])), datasets["val"])


def train_torchvision(
    config: Config, folder: str, settings: Sequence[str], datasets: Mapping[str, Dataset]
) -> EvaluationResult:
    """torchvision's detector after the same loop with the same batches, from the weights that ours would start from."""
    output = config.output_dir / folder
    own = override_config(config, [*PREDEFINED, *settings, f"output_dir={output}"])
    torch.manual_seed(own.train.seed)
    start = build_detector(own)
    if own.model.weights is not None:
        initialise_detector(start, own.model.weights)
    model = TorchvisionDetector(start)
    batches, resume = partial(train_loader, datasets["train"], own), (output / LAST).exists()
    result = train(model, batches, own.train, output, metadata=detector_metadata(start), resume=resume)
    if result.signal is not None:
        raise SystemExit(128 + result.signal)
    model.load_state_dict(read_checkpoint(output / LAST, "detector").state)
    found = {}
    for (record,), (image,) in test_loader(datasets["val"].records):
        found[record.image_id] = model.predict(image)
    return evaluate_detections(datasets["val"], found)


def figures_of(result: EvaluationResult, folder: Path) -> dict[str, Any]:
    """Metrics, AP50 of each class, and seconds of the training and the test for each image."""
    seconds = {} if result.latency is None else {"test, s/image": figure(result.latency.seconds_per_image)}
    return {
        "metrics": {key: figure(result.metrics[key]) for key in METRICS},
        "seconds": {"training, s/image": figure(seconds_per_image(folder / "metrics.jsonl"))} | seconds,
        "classes": {name: figure(value) for name, value in result.class_ap["voc_area"].items()},
    }


def improve(config: Config, training: Training, seed: int, validation: Dataset) -> None:
    """Measure a finished detector with each of IMPROVEMENTS, and keep what is found in its folder."""
    folder = config.output_dir / f"{training.folder}_{seed}"
    written = folder / IMPROVED
    found: dict[str, dict[str, float]] = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    for name, settings in IMPROVEMENTS.items():
        if name not in found:
            metrics = evaluate(
                load_detector(folder / LAST, partial(override_config, overrides=list(settings))), validation
            ).metrics
            found[name] = {key: figure(metrics[key]) for key in ("AP", "AP50", "AP75")}
            write_json(written, found)


def improvement_tables(config: Config) -> list[dict[str, Any]]:
    """A table for each row that was tested with IMPROVEMENTS: the mean of its seeds."""
    tables = []
    for training in TRAININGS:
        files = sorted(config.output_dir.glob(f"{training.folder}_[0-9]*/{IMPROVED}"))
        runs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        names = [name for name in IMPROVEMENTS if runs and all(name in run for run in runs)]
        means = {name: [statistics.mean(run[name][key] for run in runs) for key in IMPROVED_METRICS] for name in names}
        rows = [[name, *map(figure, values)] for name, values in means.items()]
        if rows:
            title = f"Improvements in the test, {training.title}, {len(runs)} training{'s' if len(runs) > 1 else ''}"
            tables.append({"title": title, "columns": ["", *IMPROVED_METRICS], "rows": rows})
    return tables


def starting_weights(config: Config, kind: Weights, training: Dataset) -> Path | None:
    """The file of a classifier that a row starts from; those that have to be computed are written first."""
    given = config.model.weights
    if kind == "given" or given is None:
        return given
    if kind == "none":
        return None
    file = config.output_dir / f"{kind}.pt"
    if not file.exists():
        write_renewed(config, given, training, file, change=unfold_norms if kind == "unfolded" else recompute_bn_statistics)
    return file


def write_renewed(
    config: Config, given: Path, training: Dataset, file: Path, change: Callable[[Backbone, Sequence[Tensor]], object]
) -> None:
    """Write the classifier with other norms: those that `change` gives it for some batches of the training images."""
    model = config.model
    backbone = build_backbone(
        model.backbone, weights=given, norm="bn", stride_in_1x1=model.stride_in_1x1, stem_pool=model.stem_pool
    ).eval()
    loader = train_loader(training, override_config(config, ["data.workers=0"]))
    images = [backbone.preprocessing.normalize(next(loader).images) for _ in range(NORM_BATCHES)]
    loader.close()
    change(backbone, images)
    metadata = CheckpointMetadata("classifier", (), backbone.preprocessing, {"model": model.model_dump(mode="json")})
    file.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(metadata, backbone.state_dict(), file)


@torch.no_grad()
def unfold_norms(backbone: nn.Module, batches: Sequence[Tensor]) -> None:
    """Give each BatchNorm the statistics of what it sees, and the scale and offset with which it computes what it did.

    Weights whose norms were folded into their convolutions can go on learning as normalised ones only so.
    """
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {norm: [] for norm in norms}

    def observe(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].double()
        seen[norm].append((x.mean((0, 2, 3)), x.square().mean((0, 2, 3))))

    hooks = [norm.register_forward_pre_hook(observe) for norm in norms]
    for images in batches:
        backbone(images)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        mean, square = (torch.stack(values).mean(0) for values in zip(*seen[norm], strict=True))
        var = (square - mean.square()).clamp(min=0)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - norm.running_mean))
        norm.weight.copy_(scale * (var + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)


def as_result(
    config: Config, found: Mapping[str, Mapping[int, Mapping[str, Any]]], picture: Path | None = None
) -> dict[str, Any]:
    """What was found so far as a file of docs/results holds it. `found`: title -> seed -> figures of a training."""
    means = {title: mean_row(list(by_seed.values())) for title, by_seed in found.items()}
    columns = list(dict.fromkeys(column for row in means.values() for column in row))
    rows: dict[str, dict[str, Any]] = {title: {key: row.get(key, "") for key in columns} for title, row in means.items()}
    train = config.train
    classes = config.data.class_names
    by_class = [
        [title, *(figure(statistics.mean(run["classes"].get(name, 0) for run in by_seed.values())) for name in classes)]
        for title, by_seed in found.items()
    ]
    by_run = [
        [f"{title}, seed {seed}", *(run["metrics"][key] for key in METRICS)]
        for title, by_seed in found.items()
        for seed, run in by_seed.items()
    ]
    return comparison(
        config,
        "real_features",
        "Real features on photographs",
        f"{config.model.backbone}, C4, after {train.steps} steps of {train.batch_size} images",
        rows,
        tables=[
            {"title": "Each class, VOC area, mean of the seeds", "columns": ["", *classes], "rows": by_class},
            {"title": "Each training", "columns": ["", *METRICS], "rows": by_run},
            *improvement_tables(config),
        ],
        pictures={} if picture is None else {"The loss as the trainings go on": f"images/{picture.name}"},
    )


def draw_losses(config: Config, found: Mapping[str, Mapping[int, object]], picture: Path) -> None:
    """Draw the loss of the first seed's training of the rows in DRAWN."""
    there = {each.title: each.folder for each in TRAININGS if each.title in found}
    drawn = {title: folder for title, folder in there.items() if folder in DRAWN} or there
    runs = [config.output_dir / f"{folder}_{min(found[title])}" for title, folder in drawn.items()]
    plot_curves(select_curves(runs, list(drawn), train_metric="loss", smooth=3), picture)


def mean_row(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and how far apart the trainings' AP50 are."""
    row: dict[str, Any] = {key: figure(statistics.mean(run["metrics"][key] for run in runs)) for key in METRICS}
    found = [run["metrics"]["AP50"] for run in runs]
    row |= {"seeds": len(runs), "spread of AP50": figure(max(found) - min(found)) if len(found) > 1 else ""}
    return row | {key: figure(statistics.mean(run["seconds"][key] for run in runs)) for key in runs[0]["seconds"]}


def finished(config: Config, training: Training) -> dict[int, dict[str, Any]]:
    """The figures of a row's finished trainings by their seeds."""
    files = sorted(config.output_dir.glob(f"{training.folder}_[0-9]*/{MEASURED}"))
    seeds = {file: file.parent.name.removeprefix(f"{training.folder}_") for file in files}
    return {int(seed): json.loads(file.read_text(encoding="utf-8")) for file, seed in seeds.items() if seed.isdecimal()}


def main() -> None:
    """Train, evaluate, and write what was found after each training."""
    parser = build_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="N", help="of each row; default: 0 1")
    names = [training.folder for training in TRAININGS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=f"of {', '.join(names)}")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the losses there, a file of docs/images")
    parser.add_argument("--improvements", action="store_true", help=f"test {', '.join(REFINED)} with box refinement, too")
    options = parser.parse_intermixed_args()
    keep_freed_memory()
    config = read_experiment(options)
    datasets = {split: load_split(config.data, split) for split in ("train", "val")}
    for seed in options.seeds:
        for training in TRAININGS:
            if training.folder in options.rows:
                print(training.title, seed, measure(config, training, seed, datasets)["metrics"], flush=True)
                if options.improvements and training.folder in REFINED:
                    improve(config, training, seed, datasets["val"])
                every = {each.title: finished(config, each) for each in TRAININGS}
                found = {title: by_seed for title, by_seed in every.items() if by_seed}
                if options.picture is not None:
                    draw_losses(config, found, options.picture)
                write_json(options.json, as_result(config, found, options.picture))


if __name__ == "__main__":
    main()
