"""One trained detector in every way to run it on a CPU: images per second, size and AP on a data set, in one run.

PyTorch in fp32 and bf16, and the exported graph by onnxruntime in fp32 and int8 and by OpenVINO in fp32, bf16 and int8, whose
ranges are measured on training images. Speed is that of one image after the other, from pixels in memory to detections: the
ways take turns. AP is of the config's `data.test`, or else `data.val`. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detection import Detector, evaluate, load_detector
from detection.allocator import keep_freed_memory
from detection.config import Config, Precision, override_config
from detection.data import load_split, read_image
from detection.engine.precision import has_native_bf16
from detection.evaluation.split import load_evaluation_split
from detection.export import export_detector, load_exported, quantise_detector
from detection.export.runtimes import RuntimeName
from detection.files import write_json
from detection.inference.predictor import Predictor
from detection.inference.tracking import predict_frame
from detection.structures import Record
from tools.benchmarks.trainings import build_parser, comparison, figure, read_experiment

METRICS = ("AP", "AP50", "voc_area")


class Way(NamedTuple):
    """A row of the table. `runtime` is None for PyTorch; `precision` is that of all that is not in int8."""

    title: str
    runtime: RuntimeName | None
    precision: Precision = "fp32"
    int8: bool = False


WAYS = (
    Way("ours fp32", None),
    Way("ours bf16", None, "bf16"),
    Way("onnxruntime fp32", "onnx"),
    Way("onnxruntime int8", "onnx", int8=True),
    Way("OpenVINO fp32", "openvino"),
    Way("OpenVINO bf16", "openvino", "bf16"),
    Way("OpenVINO int8", "openvino", int8=True),
    Way("OpenVINO int8, rest bf16", "openvino", "bf16", int8=True),
)


def ways_here() -> Iterator[Way]:
    """Those that this machine has; what is left out is said."""
    for way in WAYS:
        if way.runtime == "openvino" and importlib.util.find_spec("openvino") is None:
            print(f"{way.title}: left out, openvino is not installed", flush=True)
        elif way.precision == "bf16" and not has_native_bf16(torch.device("cpu")):
            print(f"{way.title}: left out, this CPU does not multiply bf16", flush=True)
        else:
            yield way


def load_as(way: Way, weights: Path, config: Config, folder: Path) -> Predictor:
    """The detector as the row has it: of the checkpoint, or of a graph in the folder."""
    if way.runtime is None:
        return load_detector(weights, lambda own: with_settings(own, config, way.precision))
    file = graph_file(folder, int8=way.int8)
    return load_exported(file, lambda own: with_data(own, config, way.precision), runtime=way.runtime)


def with_settings(own: Config, config: Config, precision: Precision) -> Config:
    """The checkpoint's config with the experiment's data and settings of inference."""
    return with_data(own.model_copy(update={"test": config.test}), config, precision)


def with_data(own: Config, config: Config, precision: Precision) -> Config:
    """A config with the experiment's data, in a precision."""
    return override_config(own.model_copy(update={"data": config.data}), [f"train.precision={precision}"])


def graph_file(folder: Path, *, int8: bool) -> Path:
    """Where the graph is."""
    return folder / ("int8.onnx" if int8 else "float.onnx")


def export_both(detector: Detector, records: Sequence[Record], folder: Path) -> None:
    """Write the graph in float32 and in int8, whose ranges are measured on the records' images."""
    print(export_detector(detector, graph_file(folder, int8=False)), flush=True)
    images = [record.file for record in records]
    written = quantise_detector(graph_file(folder, int8=False), graph_file(folder, int8=True), images, len(images))
    print(written, flush=True)


def megabytes(way: Way, model: Predictor, folder: Path) -> float:
    """The size of the weights: of the file of a graph, of the tensors in memory for PyTorch."""
    if isinstance(model, Detector):
        return sum(each.numel() * each.element_size() for each in model.state_dict().values()) / 2**20
    return graph_file(folder, int8=way.int8).stat().st_size / 2**20


def seconds_in_turns(models: Mapping[str, Predictor], images: Sequence[np.ndarray], rounds: int) -> dict[str, float]:
    """Seconds per image of each model, the median over the rounds, after one that does not count."""
    measured: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            for image in images:
                predict_frame(model, image)
            measured[name].append((time.perf_counter() - start) / len(images))
    return {name: statistics.median(seconds[1:]) for name, seconds in measured.items()}


def measure(
    config: Config, weights: Path, folder: Path, *, num_ranges: int, num_timed: int, rounds: int
) -> dict[str, dict[str, float]]:
    """The rows of the table: speed on the first `num_timed` images, AP on all."""
    dataset, training = load_evaluation_split(config).dataset, load_split(config.data, "train").records
    step = max(1, len(training) // num_ranges)
    export_both(load_detector(weights, lambda own: with_settings(own, config, "fp32")), training[::step][:num_ranges], folder)
    ways = list(ways_here())
    models = {way.title: load_as(way, weights, config, folder) for way in ways}
    images = [read_image(record.file) for record in dataset.records[:num_timed]]
    seconds = seconds_in_turns(models, images, rounds)
    rows: dict[str, dict[str, float]] = {}
    for way in ways:
        model = models[way.title]
        metrics = evaluate(model, dataset).metrics
        rows[way.title] = {
            "images/s": figure(1 / seconds[way.title]),
            "MB": round(megabytes(way, model, folder), 1),
            **{key: figure(metrics[key]) for key in METRICS},
        }
        print(way.title, rows[way.title], flush=True)
    return rows


def main() -> None:
    """Export, measure, write."""
    parser = build_parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="a detector's checkpoint")
    parser.add_argument("--ranges", type=int, default=100, metavar="N", help="training images for int8; default: %(default)s")
    parser.add_argument("--timed-images", type=int, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often they are timed; default: %(default)s")
    options = parser.parse_intermixed_args()
    config = read_experiment(options)
    keep_freed_memory()  # as the commands do
    sizes = {"num_ranges": options.ranges, "num_timed": options.timed_images, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(config, options.weights, Path(folder), **sizes)
    title = f"{config.model.backbone} on a CPU with {options.threads} threads, one image at a time"
    notes = ["Sizes are of the weights: in PyTorch's memory, and of the graph's file."]
    write_json(options.json, comparison(config, "runtimes", "Runtimes", title, rows, notes=notes))


if __name__ == "__main__":
    main()
