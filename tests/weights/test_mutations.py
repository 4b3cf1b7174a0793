"""Each field of a checkpoint replaced by what cannot be: one line of error, or the file is read as if nothing were wrong."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones import build_backbone, build_c4
from backbones.errors import BackboneError, CheckpointError
from backbones.weights.files import load_checkpoint
from backbones.weights.format import parse_checkpoint
from detection.engine.distributed import World
from detection.engine.optim import build_ema, build_optimizer
from detection.engine.precision import build_scaler
from detection.engine.saved_state import parse_training
from detection.engine.state import read_last_checkpoint, restore
from detection.errors import ConfigError, TrainingError
from detection.inference.detector import build_detector, load_detector
from detection.pretraining.model import build_classifier, initialise_classifier, load_classifier
from detection.weights.checkpoint import detector_metadata, initialise_detector
from detection.weights.conversion import convert_file
from tests.weights.mutations import HOSTILE, Place, paths, replaced
from tests.weights.narrow import classifier_config, detector_config

FILES = Path(__file__).parent / "files"
NETWORK = classifier_config(3).model
ERRORS = (CheckpointError, ConfigError, TrainingError, BackboneError)


def contents_of(name: str) -> dict[str, Any]:
    """A file of version 1 in the layout of today."""
    path = FILES / name
    return parse_checkpoint(load_checkpoint(path), str(path)).contents()


def resume(path: Path) -> None:
    """All that `--resume` does with the file before the first step."""
    folder = path.parent / "run"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / "last.pt")
    config, world = detector_config(4), World(0, 1, torch.device("cpu"))
    model = build_detector(config)
    checkpoint = read_last_checkpoint(folder, detector_metadata(model), config.train, world)
    ema = build_ema(model, config.train.ema_decay)
    optimizer, scaler = build_optimizer(model, config.train), build_scaler(world.device, None)
    state, _ = restore(checkpoint, folder / "last.pt", model, ema, optimizer, scaler, world)
    assert state.step == 3 and all(bool(value.isfinite().all()) for value in model.state_dict().values())


def predict(path: Path) -> None:
    load_detector(path).predict([torch.zeros(3, 64, 64, dtype=torch.uint8)])


WAYS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "load_detector": ("detector_v1.pt", predict),
    "--weights": ("detector_v1.pt", lambda path: initialise_detector(build_detector(detector_config(3)), path)),
    "--resume": ("detector_v1.pt", resume),
    "convert": ("detector_v1.pt", lambda path: convert_file(path, path.with_name("out.pt"))),
    "build_backbone": ("classifier_v1.pt", lambda path: build_backbone("narrow", path, num_classes=2)),
    "build_c4": ("classifier_v1.pt", lambda path: build_c4("narrow", path)),
    "a detector's --weights": ("classifier_v1.pt", lambda path: initialise_detector(build_detector(detector_config(3)), path)),
    "load_classifier": (
        "classifier_v1.pt",
        lambda path: load_classifier(path, NETWORK, ["apple", "berry"], as_recorded=True),
    ),
    "pretrain --weights": (
        "classifier_v1.pt",
        lambda path: initialise_classifier(build_classifier(NETWORK, ["apple", "berry"]), NETWORK, path),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_mutated_file_is_refused_in_one_line_or_read(tmp_path: Path, way: str) -> None:
    name, read = WAYS[way]
    contents = contents_of(name)
    places = list(paths(contents, 2))
    chance = random.Random(way)
    for _ in range(20):
        place, value = chance.choice(places), chance.choice(list(HOSTILE))
        torch.save(replaced(contents, place, HOSTILE[value]()), tmp_path / "x.pt")
        try:
            read(tmp_path / "x.pt")
        except ERRORS as error:
            assert str(error).isprintable() and len(str(error)) < 1000, (place, value, str(error))
        except Exception as error:
            raise AssertionError(f"{way} {place} {value}: {type(error).__name__}: {error}") from error


TRAINING_FIELDS = ("optimizer", "scheduler", "sampler", "rng", "windows", "progress")


@pytest.mark.parametrize("field", TRAINING_FIELDS)
@pytest.mark.parametrize("value", [name for name in HOSTILE if name not in ("mapping", "mapping of others")])
def test_a_run_needs_each_part(tmp_path: Path, field: str, value: str) -> None:
    """None of the parts of a training checkpoint may be anything but what it is."""
    path = tmp_path / "last.pt"
    torch.save(replaced(contents_of("detector_v1.pt"), ("training", field), HOSTILE[value]()), path)
    with pytest.raises(CheckpointError, match=r"last\.pt") as caught:
        resume(path)
    assert value in ("sparse", "meta") or field in str(caught.value) or "no training state" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("progress", "step"), 10**6, "training.step is 3, training.progress.step 1000000"),
        (("progress", "step"), True, "training.progress.step is True"),
        (("progress", "seconds"), float("nan"), "training.progress.seconds is nan"),
        (("progress", "extra"), 1, "training.progress.extra is not known here"),
        (("optimizer", "state", 0, "momentum_buffer"), torch.zeros(7), "has shape (7,), its parameter"),
        (("optimizer", "state", 0, "momentum_buffer"), torch.full((4, 3, 3, 3), torch.nan), "holds NaN or infinity"),
        (("optimizer", "state", 0, "step"), 1, "training.optimizer.state.0 has"),
        (("optimizer", "state"), {}, "training.optimizer.state is empty"),
        (("optimizer", "state"), {99: {}}, "training.optimizer.state.99 is of none of"),
        (("optimizer", "param_groups", 0, "momentum"), 0.5, "training.optimizer.param_groups.0.momentum is 0.5"),
        (("optimizer", "param_groups", 0, "params"), [0], "the optimizer's parameters are not this model's"),
        (("rng", 0, "python"), (3, (1, 2), None), "training.rng.0.python is no state"),
        (("rng", 0, "numpy", 1), torch.zeros(624), "training.rng.0.numpy is no state"),
        (("rng", 0, "torch"), torch.zeros(3, dtype=torch.uint8), "training.rng.0.torch is no state"),
        (("rng",), [], "training.rng is of 0"),
        (("windows", 0, "totals", "x"), 1.0, "sums without a count"),
        (("sampler", "world_size"), 0, "training.sampler.world_size is 0"),
        (("ema",), None, "lacks training.ema"),
    ],
)
def test_what_a_training_part_must_be(tmp_path: Path, place: Place, value: Any, message: str) -> None:
    contents = contents_of("detector_v1.pt")
    parent = contents
    for key in ("training", *place[:-1]):
        parent = parent[key]
    parent[place[-1]] = value
    torch.save(contents, tmp_path / "last.pt")
    with pytest.raises(CheckpointError) as caught:
        resume(tmp_path / "last.pt")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_whole_is_read() -> None:
    for name in ("detector_v1.pt", "classifier_v1.pt"):
        checkpoint = parse_checkpoint(contents_of(name), name)
        assert parse_training(checkpoint, FILES / name).progress.step == 3


@pytest.mark.parametrize("part", ["model", "training.ema"])
def test_numbers_that_no_model_computes_with(tmp_path: Path, part: str) -> None:
    for number in (float("nan"), 1e300):
        contents = contents_of("detector_v1.pt")
        state = contents["model"] if part == "model" else contents["training"]["ema"]
        key = next(key for key in state if key.endswith("rpn.conv.weight"))
        state[key] = state[key].double().index_fill(0, torch.tensor(0), number)
        torch.save(contents, tmp_path / "x.pt")
        for read in (resume,) if part == "training.ema" else (resume, predict):
            with pytest.raises(CheckpointError, match=r"rpn\.conv\.weight' holds n|rpn\.conv\.weight' holds N"):
                read(tmp_path / "x.pt")


def test_a_small_file_builds_no_large_network(tmp_path: Path) -> None:
    contents = contents_of("detector_v1.pt")
    names = [f"class {number}" for number in range(20_000)]
    for change in ({"rpn": {"channels": 8192}}, {"data": {"classes": names}}, {"rpn": {"anchor_sizes": [16.0] * 3}}):
        config = dict(contents["metadata"]["config"])
        config |= {section: config[section] | values for section, values in change.items()}
        class_names = change.get("data", {}).get("classes", contents["metadata"]["class_names"])
        changed = contents | {"metadata": contents["metadata"] | {"config": config, "class_names": class_names}}
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match="its own config asks for|holds a config that this version cannot read"):
            load_detector(tmp_path / "x.pt")
