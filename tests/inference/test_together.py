"""Two processes under torchrun, each with a share of the images, find and measure what one finds and measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detection.engine.distributed import World
from detection.inference.detector import load_detector
from tests.child_process import TWO_PROCESSES, run_python
from tests.cli.trained import write_trained
from tests.inference.ranks import TRAIN, evaluated, said
from tests.shapes import write_config


@pytest.fixture(scope="module")
def trained(module_path: Path) -> Path:
    """A devkit with three pictures: the processes have shares of two sizes."""
    return write_trained(module_path / "trained")


@pytest.fixture(scope="module")
def alone(trained: Path, module_path: Path) -> dict[str, Any]:
    """What one process finds and writes."""
    folder = module_path / "alone"
    folder.mkdir()
    found = evaluated(trained / "best.pt")
    weights = ["--weights", trained / "best.pt", "train.precision=fp32"]
    found["voc"] = said("eval-voc", *weights, "--json", folder / "voc.json", "--write-detections", folder / "voc")
    found["coco"] = said("eval-coco", *weights, "--json", folder / "coco.json")
    return found


@pytest.fixture(scope="module")
def together(alone: dict[str, Any], trained: Path, devkit: Path, module_path: Path) -> Path:
    """The folder in which two processes have written the same, and `PROCESS.txt`, what they said on stderr."""
    folder = module_path / "together"
    folder.mkdir()
    experiment = write_config(module_path, devkit)
    done = run_python([*TWO_PROCESSES, "tests.inference.ranks", str(trained), str(experiment), str(folder)])
    (folder / "stderr.txt").write_text(done.stderr)
    return folder


def read(folder: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{rank}.json").read_text())
    return content


@pytest.mark.parametrize("rank", [0, 1])
def test_both_processes_have_all_detections_and_the_numbers_of_one(rank: int, together: Path, alone: dict[str, Any]) -> None:
    found, expected = read(together, rank), json.loads(json.dumps(alone))
    assert found["metrics"] == expected["metrics"] and found["boxes"] == expected["boxes"]
    assert list(found["boxes"]) == ["im0", "im1", "im2"] and found["few"] == ["im0"]
    assert found["heard"] == ([3] if rank == 0 else [2])  # two images of three, and one, as if the other were as far


def test_commands_write_and_print_once(together: Path, alone: dict[str, Any], module_path: Path) -> None:
    first, second = read(together, 0), read(together, 1)
    assert (second["voc"], second["coco"]) == ("", "")
    assert first["coco"] == alone["coco"]
    assert first["voc"].replace("together", "alone") == alone["voc"]
    for file in ("voc.json", "coco.json", "voc/comp4_det_test_cat.txt", "voc/comp4_det_test_dog.txt"):
        assert (together / file).read_text() == (module_path / "alone" / file).read_text()


def test_a_training_is_measured_with_the_weights_that_it_keeps(together: Path) -> None:
    """All processes measure rank 0's norms: those that it writes."""
    first, second = read(together, 0)["trained"], read(together, 1)["trained"]
    model = load_detector(together / "run/last.pt")
    assert model.config.model.norm == "bn" and "train.steps=2" in TRAIN
    assert first == second == pytest.approx(model.evaluate().metrics, abs=1e-6)


def test_an_image_that_cannot_be_read_ends_both_with_one_line(together: Path) -> None:
    assert [(together / f"code.{rank}.txt").read_text() for rank in (0, 1)] == ["2", "2"]
    errors = [line for line in (together / "stderr.txt").read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "im1" in errors[0]


def test_a_share_is_every_nth() -> None:
    import torch

    worlds = [World(rank, 3, torch.device("cpu")) for rank in range(3)]
    assert [list(world.share(range(7))) for world in worlds] == [[0, 3, 6], [1, 4], [2, 5]]
    assert [list(world.share([])) for world in worlds] == [[], [], []]
