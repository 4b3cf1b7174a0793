"""What each of two processes under torchrun does in `test_together.py`. All in one program: starting one takes seconds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from detection import train_detector
from detection.cli.main import main
from detection.config import load_config
from detection.engine.distributed import World
from detection.engine.group import process_group
from detection.evaluation.split import load_evaluation_split
from detection.inference.dataset import predict_together
from detection.inference.detector import load_detector
from detection.inference.evaluate import evaluate

RANK = os.environ.get("RANK", "0")
TRAIN = ("train.steps=2", "train.batch_size=2", "model.norm=bn", "model.freeze_stages=0", "test.score_threshold=0.0")


def evaluated(weights: Path) -> dict[str, object]:
    """The metrics of the checkpoint on its test split, and what was found, by all processes of the environment."""
    world, model = World.from_environment(), load_detector(weights)
    dataset = load_evaluation_split(model.config).dataset
    heard: list[int] = []
    result = evaluate(model, dataset, workers=0, world=world, report=heard.append)
    few = predict_together(model, dataset.records[:1], world, workers=0)
    boxes = {str(image): found.boxes.tolist() for image, found in result.detections.items()}
    return {"metrics": result.metrics, "boxes": boxes, "few": list(few), "heard": heard}


def said(*arguments: object) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert main([*map(str, arguments)]) == 0
    return text.getvalue()


def work(trained: Path, experiment: Path, folder: Path) -> None:
    """Evaluate by the library and by commands, and train with an evaluation at the end."""
    found = evaluated(trained / "best.pt")
    weights = ["--weights", trained / "best.pt", "train.precision=fp32"]
    found["voc"] = said("eval-voc", *weights, "--json", folder / "voc.json", "--write-detections", folder / "voc")
    found["coco"] = said("eval-coco", *weights, "--json", folder / "coco.json")
    result = train_detector(load_config(experiment, [*TRAIN, f"output_dir={folder / 'run'}"]))
    found["trained"] = result.metrics
    (folder / f"{RANK}.json").write_text(json.dumps(found))
    bad = next((trained / "data/JPEGImages").glob("im1.*"))
    bad.write_bytes(b"no picture")
    code = main(["eval-coco", *map(str, weights)])
    (folder / f"code.{RANK}.txt").write_text(str(code))


if __name__ == "__main__":
    with process_group(World.from_environment()):  # one for all: commands and trainings join it
        work(*map(Path, sys.argv[1:4]))
