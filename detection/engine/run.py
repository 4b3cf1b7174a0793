"""A training run: the objects that the loop, the log and the evaluation work on together, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.errors import first_names
from backbones.weights.files import save_checkpoint
from detection.config import TrainConfig
from detection.engine.distributed import World, on_main
from detection.engine.folder import RunFolder
from detection.engine.log import LogLine, RunLog
from detection.engine.saved_state import TrainState
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, snapshot
from detection.engine.window import LogWindow
from detection.errors import TrainingError
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
    folder: RunFolder
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
    def output_dir(self) -> Path:
        """Where the checkpoints and the log are kept."""
        return self.folder.path

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated, and kept in best.pt: the model with averaged weights where there is one."""
        return self.model if self.ema is None else self.ema.module


def save_last(run: TrainingRun) -> None:
    """Replace last.pt in one instant; the old one stays whole if this fails. Called by all processes.

    Raises TrainingError where a number in it is not finite, or the folder was deleted; CheckpointError where it cannot be
    written.
    """
    checkpoint = snapshot(run.model, run.ema, run.optimizer, run.state, run.window, run.config, run.world, run.metadata)
    on_main(run.world, lambda: _save(run, checkpoint, LAST))


def save_best(run: TrainingRun) -> None:
    """Replace best.pt. Called by all processes. Raises as `save_last` does."""
    training = {"step": run.state.step, "best": run.state.best_as_dict()}
    checkpoint = Checkpoint(run.metadata, run.evaluated_model.state_dict(), training)
    on_main(run.world, lambda: _save(run, checkpoint, BEST))


def _save(run: TrainingRun, checkpoint: Checkpoint, name: str) -> None:
    run.folder.require_intact()
    require_finite(checkpoint, run.state.step, run.output_dir / name)
    save_checkpoint(checkpoint.contents(), run.output_dir / name)


def require_finite(checkpoint: Checkpoint, step: int, path: Path) -> None:
    """Raise TrainingError, naming step and tensor, where weights, their average or the optimizer's state are not finite."""
    tensors = _named_tensors("model", checkpoint.state) | _named_tensors("training", checkpoint.training)
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise TrainingError(
            f"after step {step}: {first_names(bad)} are not finite, so {path} is left as it was. Lower train.learning_rate, "
            f"lengthen train.warmup_steps or set train.clip_norm, and go on from the last good checkpoint (--resume)"
        )


def _named_tensors(name: str, value: object) -> dict[str, torch.Tensor]:
    """The floating point tensors in nested containers, by dotted names."""
    if isinstance(value, torch.Tensor):
        return {name: value} if value.is_floating_point() else {}
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    found: dict[str, torch.Tensor] = {}
    for key, item in items:
        found |= _named_tensors(f"{name}.{key}", item)
    return found
