"""A program's own settings of torch and numpy, its threads, and broken weights: a detector gives the same, or an error."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detection import Detector, Ensemble, build_detector, load_detector
from detection.config import Config
from detection.data.augmentations import build_augmentation
from detection.data.transforms import prepare
from detection.errors import CheckpointError
from detection.structures import Batch, Detections, Target
from detection.weights.checkpoint import detector_metadata, write_checkpoint
from tests.inference.test_detector import assert_same, confident
from tests.small_detector import detector, noise


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


HOSTS: dict[str, Any] = {
    "bfloat16": lambda: default_type(torch.bfloat16),
    "float16": lambda: default_type(torch.float16),
    "float64": lambda: default_type(torch.float64),
    "meta": lambda: default_device("meta"),
    "meta block": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "errstate": lambda: np.errstate(all="raise"),
}

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
AUGMENTATION: list[dict[str, Any]] = [
    {"HorizontalFlip": {}},
    {"Affine": {"rotate": 9, "p": 1.0}},
    {"GaussNoise": {"p": 1.0}},
    {"ColorJitter": {}},
]


def target() -> Target:
    boxes = np.array([[5, 5, 40, 50], [20, 10, 79, 63]], np.float32)
    known = torch.from_numpy(np.array([True, False]))
    return Target(torch.from_numpy(boxes), torch.from_numpy(np.array([1, 0])), torch.from_numpy(boxes[:0]), known)


def results(model: Detector) -> dict[str, Any]:
    """What a program may ask of a detector, as tensors."""
    found: dict[str, Any] = {"predict": [vars(each) for each in model.predict([IMAGE])], "empty": vars(Detections.empty())}
    found["ensemble"] = [vars(each) for each in Ensemble([model, model]).predict([IMAGE])]
    pixels, moved = prepare(IMAGE, target(), build_augmentation(AUGMENTATION), (40,), 70, seed=5)
    found["prepare"] = [pixels, vars(moved)]
    images = torch.from_numpy(np.ascontiguousarray(IMAGE.transpose(2, 0, 1)))[None]
    torch.manual_seed(1)
    found["losses"] = {name: loss.detach() for name, loss in model(Batch(images, [(64, 80)], [target()])).items()}
    return found


def made(config: Config, file: Path) -> dict[str, Any]:
    """A new detector's weights, and a file's."""
    torch.manual_seed(2)
    return {"built": build_detector(config).state_dict(), "loaded": load_detector(file).state_dict()}


def assert_identical(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.device == expected.device and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_identical(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (ours, value) in enumerate(zip(found, expected, strict=True)):
            assert_identical(ours, value, f"{where}.{number}")
    else:
        assert found == expected, where


@pytest.mark.parametrize("pooling", ["max", "align"])
def test_a_program_may_set_what_it_wants(pooling):
    test: dict[str, Any] = {"refinement_passes": 1, "voting": True, "scales": [48, 64], "scale_area": 24}
    test = {**test, "score_threshold": {"cat": 0.0, "dog": 0.001}} if pooling == "max" else {}
    model = confident(roi={"pooling": pooling, "context": True}, test=test).train()
    expected = results(model)
    assert len(expected["predict"][0]["boxes"]) > 0
    for name, host in HOSTS.items():
        settings: AbstractContextManager[Any] = host()
        with settings:
            found = results(model)
        assert_identical(found, expected, name)


def test_detectors_are_made_alike_whatever_a_program_sets(tmp_path):
    model, file = detector(), tmp_path / "a.pt"
    write_checkpoint(detector_metadata(model), model.state_dict(), file)
    expected = made(model.config, file)
    with default_type(torch.bfloat16), torch.device("meta"), torch.inference_mode():
        found = made(model.config, file)
        assert not any(value.is_inference() for value in found["built"].values())
    assert_identical(found, expected)


def test_threads_may_predict_with_one_detector_in_training_mode():
    model = confident(model={"norm": "bn", "freeze_stages": 0}, test={"refinement_passes": 1, "voting": True})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None:
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
    image = noise(64, 80)
    (expected,) = model.eval().predict([image])
    state = {key: value.clone() for key, value in model.train().state_dict().items()}
    modes = [module.training for module in model.modules()]
    seen: list[Detections] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        for _ in range(3):
            seen.extend(model.predict([image]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 24
    for found in seen:
        assert_same(found, expected, exactly=True)
    assert [module.training for module in model.modules()] == modes and modes[0]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


BROKEN = ["trunk.conv1.weight", "rpn.objectness.bias", "rpn.deltas.weight", "roi_head.class_scores.bias"]
BROKEN += ["roi_head.box_deltas.bias"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("key", BROKEN)
def test_weights_that_are_not_finite_are_an_error(key, value):
    model = detector().eval()
    model.get_parameter(key).data[-1] = value
    for test in ({}, {"flip": True, "refinement_passes": 1, "voting": True}):
        model.use_test_config(model.config.test.model_copy(update=test))
        with pytest.raises(CheckpointError, match="outputs are not finite"):
            model.predict([noise(64, 80)])
