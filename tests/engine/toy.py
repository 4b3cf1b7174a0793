"""A model and data small enough to be trained in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.preprocessing import IMAGENET_PREPROCESSING
from detection.config import TrainConfig
from detection.engine.callbacks import Callback
from detection.engine.result import TrainResult
from detection.engine.run import Validation
from detection.engine.train import train
from detection.weights.checkpoint import CheckpointMetadata, software_versions

CONFIG = TrainConfig(
    batch_size=8,
    images_per_device=4,
    accumulate=2,
    steps=12,
    learning_rate=0.05,
    lr_drops=(9,),
    warmup_steps=3,
    clip_norm=5.0,
    precision="fp32",
    log_every=4,
    checkpoint_every=5,
    eval_every=6,
)


@dataclass
class ToyBatch:
    points: Tensor  # (N, 3)
    files: list[str]

    def __len__(self) -> int:
        return len(self.points)

    def to(self, device: torch.device | str) -> ToyBatch:
        return ToyBatch(self.points.to(device), self.files)


class ToyModel(nn.Module):
    """Two losses; `noisy` ones draw random numbers, as a detector's sampling does."""

    def __init__(self, noisy: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
        self.noisy = noisy

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        noise = torch.rand(()) if self.noisy else 0.5
        output = self.layers(batch.points)
        return {"far": (output[:, 0] - noise).pow(2).mean(), "near": output[:, 1].abs().mean()}


def toy_batch(number: int, size: int = 4) -> ToyBatch:
    """Images 4 * number, ...: a pure function of the number."""
    points = [torch.randn(3, generator=torch.Generator().manual_seed(number * size + i)) for i in range(size)]
    return ToyBatch(torch.stack(points), [f"{number * size + i}.jpg" for i in range(size)])


def toy_batches(first: int) -> Iterator[ToyBatch]:
    number = first
    while True:
        yield toy_batch(number)
        number += 1


def slow_batches(first: int) -> Iterator[ToyBatch]:
    for batch in toy_batches(first):
        time.sleep(0.01)
        yield batch


def measure(model: nn.Module) -> dict[str, float]:
    """Stands for an evaluation; the weights decide."""
    return {"AP": -float(sum(parameter.abs().sum() for parameter in model.parameters())), "other": 1.0}


def toy_metadata(config: dict[str, Any]) -> CheckpointMetadata:
    """What the toy's checkpoints say of it."""
    return CheckpointMetadata("classifier", ("near", "far"), IMAGENET_PREPROCESSING, config, versions=software_versions())


def run(
    output_dir: Path,
    config: TrainConfig = CONFIG,
    *,
    model: nn.Module | None = None,
    batches: Callable[[int], Iterator[Any]] = toy_batches,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = measure,
    best_metric: str | None = "AP",
    higher_is_better: bool = True,
    resume: bool = False,
    settings: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    validation_batches: Callable[[], Iterable[Any]] | None = None,
) -> TrainResult:
    """Train the toy. `settings` are further keys of the run's config."""
    if model is None:
        torch.manual_seed(7)
        model = ToyModel()
    return train(
        model,
        batches,
        config,
        output_dir,
        metadata=toy_metadata({"train": config.model_dump(mode="json"), **(settings or {})}),
        validation=None
        if evaluate is None
        else Validation.on_main(evaluate, best_metric, higher_is_better, validation_batches),
        resume=resume,
        callbacks=callbacks,
    )
