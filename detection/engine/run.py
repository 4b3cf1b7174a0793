"""What the parts of the training loop share, and its way to the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.weights.files import save_checkpoint
from detection.config import TrainConfig
from detection.engine.distributed import World, on_main
from detection.engine.log import Line, RunLog
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, TrainState, snapshot
from detection.engine.window import Window
from detection.weights.checkpoint import model_part

Evaluate = Callable[[nn.Module], dict[str, float]]
WarmedUp = Callable[[Line], bool]
"""The record of a log interval -> whether the full learning rate may begin."""


@dataclass
class Run:
    """One process's view of a run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainConfig  # scaled
    world: World
    output_dir: Path
    metadata: dict[str, Any]
    evaluate: Evaluate | None
    best_metric: str | None
    log: RunLog
    stop: StopSignals
    average: AveragedModel | None = None  # of the weights, with train.ema_decay
    warmed_up: WarmedUp | None = None
    state: TrainState = field(default_factory=TrainState)
    window: Window = field(default_factory=Window)

    @property
    def result(self) -> nn.Module:
        """The weights that are evaluated and kept: the averaged ones where there are any."""
        return self.model if self.average is None else self.average.module


def save(run: Run) -> None:
    """Replace last.pt in one instant; the old one stays whole if this fails. Called by all processes."""
    checkpoint = snapshot(run.model, run.average, run.optimizer, run.state, run.window, run.config, run.world, run.metadata)
    on_main(run.world, lambda: save_checkpoint(checkpoint, run.output_dir / LAST))


def save_best(run: Run) -> None:
    """Replace best.pt. Called by all processes."""
    checkpoint = {**model_part(run.result, run.metadata), "step": run.state.step, "best": run.state.best}
    on_main(run.world, lambda: save_checkpoint(checkpoint, run.output_dir / BEST))
