"""A training run: the objects that the loop, the log and the evaluation work on together, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.weights.files import save_checkpoint
from detection.config import TrainConfig
from detection.engine.distributed import World, on_main
from detection.engine.log import LogLine, RunLog
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, TrainState, snapshot
from detection.engine.window import LogWindow
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata

Evaluate = Callable[[nn.Module], dict[str, float]]
WarmUpIsOver = Callable[[LogLine], bool]
"""The line of a log interval -> whether the warm-up is over, so that the full learning rate begins."""


@dataclass
class TrainingRun:
    """Everything that one process needs for its part of a run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: TrainConfig  # scaled
    world: World
    output_dir: Path
    metadata: CheckpointMetadata
    evaluate: Evaluate | None
    best_metric: str | None
    higher_is_better: bool  # of best_metric
    log: RunLog
    stop: StopSignals
    ema: AveragedModel | None = None  # the moving average of the weights, with train.ema_decay
    warm_up_is_over: WarmUpIsOver | None = None
    state: TrainState = field(default_factory=TrainState)
    window: LogWindow = field(default_factory=LogWindow)

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated, and kept in best.pt: the model with averaged weights where there is one."""
        return self.model if self.ema is None else self.ema.module


def save_last(run: TrainingRun) -> None:
    """Replace last.pt in one instant; the old one stays whole if this fails. Called by all processes."""
    checkpoint = snapshot(run.model, run.ema, run.optimizer, run.state, run.window, run.config, run.world, run.metadata)
    on_main(run.world, lambda: save_checkpoint(checkpoint.contents(), run.output_dir / LAST))


def save_best(run: TrainingRun) -> None:
    """Replace best.pt. Called by all processes."""
    training = {"step": run.state.step, "best": run.state.best_as_dict()}
    checkpoint = Checkpoint(run.metadata, run.evaluated_model.state_dict(), training)
    on_main(run.world, lambda: save_checkpoint(checkpoint.contents(), run.output_dir / BEST))
