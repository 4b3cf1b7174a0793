"""A training run: the objects that the loop, the log and the evaluation work on together, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from backbones.errors import first_names
from backbones.weights.files import save_checkpoint
from detection.config import TrainConfig
from detection.engine.callbacks import CallbackList, LogLine, SavedCheckpoint
from detection.engine.distributed import World, on_main
from detection.engine.folder import RunFolder
from detection.engine.log import RunLog
from detection.engine.optim import build_ema, build_optimizer
from detection.engine.precision import build_scaler
from detection.engine.saved_state import TrainState
from detection.engine.signals import StopSignals
from detection.engine.state import BEST, LAST, snapshot
from detection.engine.window import LogWindow
from detection.errors import TrainingError
from detection.weights.checkpoint import Checkpoint, CheckpointMetadata

WarmUpIsOver = Callable[[LogLine], bool]
"""The line of a log interval -> whether the warm-up is over, so that the full learning rate begins."""


class TrainBatch(Protocol):
    """What the loop needs to know of a batch."""

    @property
    def files(self) -> list[str]:
        """The images' files, to name them where the loss is not finite."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> Any:
        """The same batch on a device."""


@dataclass(frozen=True)
class Validation:
    """How a run measures its model while it trains. The model is in eval mode then.

    Each process does its `share`, and rank 0 gets the metrics from what all give, by rank: `measure`. best.pt holds the
    weights with the best `best_metric` of the metrics, the highest value or the lowest, as `higher_is_better` says. `batches`
    are those of the validation losses, the same at each call.
    """

    share: Callable[[nn.Module, World], Any]
    measure: Callable[[list[Any]], dict[str, float]]
    best_metric: str | None = None
    higher_is_better: bool = True
    batches: Callable[[], Iterable[TrainBatch]] | None = None

    @staticmethod
    def on_main(
        evaluate: Callable[[nn.Module], dict[str, float]],
        best_metric: str | None = None,
        higher_is_better: bool = True,
        batches: Callable[[], Iterable[TrainBatch]] | None = None,
    ) -> Validation:
        """One that rank 0 does alone, while the others wait."""

        def share(model: nn.Module, world: World) -> dict[str, float]:
            return evaluate(model) if world.is_main else {}

        def measure(shares: list[dict[str, float]]) -> dict[str, float]:
            return shares[0]

        return Validation(share, measure, best_metric, higher_is_better, batches)


@dataclass
class TrainingRun:
    """Everything that one process needs for its part of a run. Raises TrainingError where nothing is to be trained."""

    model: nn.Module
    config: TrainConfig  # scaled
    world: World
    folder: RunFolder
    metadata: CheckpointMetadata
    validation: Validation | None
    log: RunLog
    callbacks: CallbackList
    stop: StopSignals
    dtype: torch.dtype | None = None  # of autocast; None: fp32
    warm_up_is_over: WarmUpIsOver | None = None
    ema: AveragedModel | None = field(init=False)  # the moving average of the weights, with train.ema_decay
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)  # of the losses in fp16; with other precisions it is disabled
    state: TrainState = field(init=False)
    window: LogWindow = field(default_factory=LogWindow)
    asked_to_stop: str | None = None  # the callback of rank 0 that all processes stop for, and its reason

    def __post_init__(self) -> None:
        self.ema = build_ema(self.model, self.config.ema_decay)
        self.optimizer = build_optimizer(self.model, self.config, self.dtype)
        self.scaler = build_scaler(self.world.device, self.dtype)
        self.state = TrainState(warm=self.warm_up_is_over is None)

    @property
    def output_dir(self) -> Path:
        """Where the checkpoints and the log are kept."""
        return self.folder.path

    @property
    def evaluated_model(self) -> nn.Module:
        """What is evaluated, and kept in best.pt: the model with averaged weights where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def stopped_by(self) -> str | None:
        """What ends the run before its last step, other than a signal: known to all processes."""
        patience, stale = self.config.stop_patience, self.state.since_best
        if 0 < patience <= stale:
            return f"{self.config.key}.stop_patience: {stale} evaluation(s) without a better value"
        return self.asked_to_stop

    @property
    def is_over(self) -> bool:
        """Whether there is no further step."""
        return self.state.step >= self.config.steps or self.stop.agreed is not None or self.stopped_by is not None

    def tell(self, call: Callable[[CallbackList], None]) -> None:
        """Call the callbacks on rank 0, and let all processes know whether one of them asks to stop."""

        def called() -> str | None:
            call(self.callbacks)
            return self.callbacks.stopped_by

        self.asked_to_stop = on_main(self.world, called)


def save_last(run: TrainingRun) -> None:
    """Replace last.pt in one instant; the old one stays whole if this fails. Called by all processes.

    Raises TrainingError where a number in it is not finite, or the folder was deleted; CheckpointError where it cannot be
    written.
    """
    checkpoint = snapshot(
        run.model, run.ema, run.optimizer, run.scaler, run.state, run.window, run.config, run.world, run.metadata
    )
    on_main(run.world, lambda: _save(run, checkpoint, LAST))
    _tell_saved(run, LAST)


def save_best(run: TrainingRun) -> None:
    """Replace best.pt. Called by all processes. Raises as `save_last` does."""
    training = {"step": run.state.step, "best": run.state.best_as_dict()}
    checkpoint = Checkpoint(run.metadata, run.evaluated_model.state_dict(), training)
    on_main(run.world, lambda: _save(run, checkpoint, BEST))
    _tell_saved(run, BEST)


def _tell_saved(run: TrainingRun, name: str) -> None:
    saved = SavedCheckpoint(run.output_dir / name, run.state.step, is_best=name == BEST)
    run.tell(lambda callbacks: callbacks.call(lambda each: each.on_checkpoint(saved)))


def _save(run: TrainingRun, checkpoint: Checkpoint, name: str) -> None:
    run.folder.require_intact()
    require_finite(checkpoint, run.state.step, run.output_dir / name, run.config.key)
    save_checkpoint(checkpoint.contents(), run.output_dir / name)


def require_finite(checkpoint: Checkpoint, step: int, path: Path, section: str = TrainConfig.key) -> None:
    """Raise TrainingError, naming step and tensor, where weights, their average or the optimizer's state are not finite.

    `section` is the solver's in the config.
    """
    tensors = _named_tensors("model", checkpoint.state) | _named_tensors("training", checkpoint.training)
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise TrainingError(
            f"after step {step}: {first_names(bad)} are not finite, so {path} is left as it was. Lower "
            f"{section}.learning_rate, lengthen {section}.warmup_steps or set {section}.clip_norm, and "
            "go on from the last good checkpoint (--resume)"
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
