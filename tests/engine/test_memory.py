"""Memory that runs out in a step ends a run with one line, whatever raises it, and leaves the last checkpoint whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backbones.weights.format import KINDS, Kind
from detection.config import TrainConfig
from detection.config.localiser import LocRcnnTrainConfig, LocRpnTrainConfig
from detection.engine.memory import SIZE_KEYS
from detection.engine.train import train
from detection.errors import TrainingError
from detection.out_of_memory import is_out_of_memory
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batches, toy_metadata

# As the libraries word them.
ERRORS: list[Exception] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.11 GB, other allocations: 1.12 GB, max allowed: 18.13 GB)"),
    RuntimeError("[enforce fail at CPUAllocator.cpp:64] . DefaultCPUAllocator: not enough memory: you tried to allocate 4 B"),
    MemoryError(),
]


def error_of(allocate: Callable[[], object]) -> Exception:
    """What a library raises for more memory than there is address space."""
    try:
        allocate()
    except Exception as error:
        return error
    raise AssertionError("nothing is raised")


ERRORS += [
    error_of(lambda: torch.empty(2**60, dtype=torch.uint8, device="cpu")),
    error_of(lambda: np.empty(2**60, dtype=np.uint8)),
]


@dataclass
class ImageBatch(ToyBatch):
    """With images, as detectors and classifiers have them."""

    images: Tensor

    def to(self, device: torch.device | str) -> ImageBatch:
        return self


def image_batches(first: int) -> Iterator[ImageBatch]:
    for batch in toy_batches(first):
        yield ImageBatch(batch.points, batch.files, torch.zeros(4, 3, 20, 30))


class Hungry(ToyModel):
    """Raises in the batch of that number."""

    def __init__(self, error: Exception, at: int = 0) -> None:
        super().__init__()
        self.error, self.calls, self.at = error, 0, at

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls > self.at:
            raise self.error
        return super().forward(batch)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:30])
def test_each_is_one_line_with_three_keys(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, model=Hungry(error, at=13), batches=image_batches)
    assert re.fullmatch(
        r"step 7: the memory \(cpu\) does not suffice for 4 images of 30x20 pixels\. Lower train\.images_per_device \(now 4; "
        r"raise train\.accumulate by as much\), data\.image_size, or the depth of model\.backbone\. .*last\.pt is as it was .*",
        str(caught.value),
    )
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert torch.load(tmp_path / "last.pt", weights_only=True)["training"]["step"] == 6


def test_one_image_cannot_be_fewer(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"images_per_device": 1, "batch_size": 2})
    with pytest.raises(TrainingError, match=r"Lower data.image_size, .* \(train.images_per_device is 1 already\)"):
        run(tmp_path, config, model=Hungry(MemoryError()))


def test_the_optimizers_state_may_be_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: Any, *args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    with pytest.raises(TrainingError, match=r"step 1: the memory \(cpu\) does not suffice\. Lower"):
        run(tmp_path)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), RuntimeError("memory format")],
)
def test_other_errors_are_left_alone(tmp_path: Path, error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=re.escape(str(error))):
        run(tmp_path, model=Hungry(error))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_model_has_keys(kind: str) -> None:
    assert all(SIZE_KEYS[kind])


@pytest.mark.parametrize(("kind", "solver"), [("loc_rpn", LocRpnTrainConfig), ("loc_rcnn", LocRcnnTrainConfig)])
def test_a_stage_of_localisation_names_its_own_keys(tmp_path: Path, kind: Kind, solver: type[TrainConfig]) -> None:
    config = solver.model_validate(CONFIG.model_dump())
    metadata = replace(toy_metadata({}), kind=kind)
    with pytest.raises(TrainingError, match=rf"Lower {solver.key}\.images_per_device \(now 4; raise {solver.key}\.accumulate"):
        train(Hungry(MemoryError()), toy_batches, config, tmp_path, metadata=metadata)
