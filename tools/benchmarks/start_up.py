"""How long the demo takes on one picture beyond the prediction itself.

The prediction is that of a process that has already made one. What the first one of a process takes longer, for memory and
for choosing kernels, therefore counts as start-up, as do starting Python, imports, reading the checkpoint and the picture,
drawing and writing. Python's start and the import of torch are most of it, which no code here can change: they are measured
by themselves too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from detection.data.images import read_image
from detection.inference.detector import load_detector
from detection.structures import Detections
from detection.weights.checkpoint import detector_metadata, write_checkpoint
from tools.benchmarks.benchmark import Benchmark, Result, Work
from tools.benchmarks.detector import DetectorCase, our_detector, suitable_precision
from tools.benchmarks.parts import Options

# What tools/demo.py does.
DEMO = "from detection.cli.main import run_command; run_command('demo')"
WEIGHTS, PICTURE = "detector.pt", "picture.jpg"
WHOLE, PREDICTION, IMPORTS = "ours, the whole command", "the prediction alone", "python, import torch"


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """The whole command, its prediction, and the import of torch."""
    case = DetectorCase("infer", suitable_precision(options.device), device=options.device)
    height, width = case.size_hw
    yield Benchmark(
        f"demo on one picture of {height}x{width}, ResNet-50 C4, {case.precision}",
        {
            WHOLE: partial(demo_work, str(folder), case),
            PREDICTION: partial(prediction_work, str(folder), case),
            IMPORTS: partial(python_work, ["-c", "import torch"], options.device),
        },
        count_flops=False,
        measure_memory=False,
        summarize=added_seconds,
    )


def added_seconds(results: Mapping[str, Result]) -> dict[str, float]:
    """What the command takes beyond its prediction, and how much of that is not the import of torch."""
    added = results[WHOLE].median - results[PREDICTION].median
    return {
        "seconds that the command adds to its prediction": round(added, 2),
        "of these without Python's start and the import of torch": round(added - results[IMPORTS].median, 2),
    }


def demo_work(folder: str, case: DetectorCase) -> Work:
    """The demo command as a process of its own."""
    prepare(Path(folder), case)
    weights, picture = Path(folder, WEIGHTS), Path(folder, PICTURE)
    output = Path(folder, "drawn")
    return python_work(["-c", DEMO, str(picture), "--weights", str(weights), "--output", str(output)], case.device)


def python_work(arguments: list[str], device: str) -> Work:
    """Python with these arguments, with as many threads as this process has, and no GPU where none is measured."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""

    def run() -> None:
        done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[-500:])

    return run


def prediction_work(folder: str, case: DetectorCase) -> Work:
    """The prediction alone: what lies in the middle of the demo."""
    prepare(Path(folder), case)
    model, image = load_detector(Path(folder, WEIGHTS), device=case.device), read_image(Path(folder, PICTURE))

    def predict() -> Sequence[Detections]:
        with case.autocast():
            return model.predict([image])

    return predict


def prepare(folder: Path, case: DetectorCase) -> None:
    """Write the checkpoint, with random weights, and the picture, unless they are there."""
    if (folder / PICTURE).exists():
        return
    model = our_detector(case)
    write_checkpoint(detector_metadata(model), model.state_dict(), folder / WEIGHTS)
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / PICTURE), cv2.resize(coarse, case.size_hw[::-1], interpolation=cv2.INTER_CUBIC))
