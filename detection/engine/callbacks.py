"""What others may do in the course of a run: log it, follow it, stop it.

A run calls its callbacks on rank 0, one after the other: first its own, which write metrics.jsonl, the console and
TensorBoard, then those that were given to it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detection.engine.result import TrainResult

logger = logging.getLogger(__name__)

LogLine = dict[str, Any]
"""A "train" line of metrics.jsonl: `kind`, `step`, `loss`, `losses` by name, `learning_rate`, and what else was measured."""


@dataclass(frozen=True)
class RunInfo:
    """A run as it begins, or goes on from its last checkpoint."""

    output_dir: Path
    config: Mapping[str, Any]  # the resolved config, plain values: what config.yaml holds
    steps: int  # of the whole run
    first_step: int = 0  # steps that were done before
    evaluated: int = 0  # the step of the last evaluation before; that of `first_step` itself may still be to come
    resumed: bool = False


@dataclass(frozen=True)
class Evaluation:
    """An evaluation on the validation split."""

    step: int
    metrics: Mapping[str, float]
    best_metric: str | None = None  # which of the metrics best.pt is chosen by
    is_best: bool = False  # whether its value is the best so far
    losses: Mapping[str, float] = field(default_factory=dict)  # with train.validation_losses: by name

    def line(self) -> LogLine:
        """The record in metrics.jsonl, where a value that is not a number is null."""
        losses = {"val_loss": sum(self.losses.values()), "val_losses": dict(self.losses)} if self.losses else {}
        return {"kind": "evaluation", "step": self.step, "metrics": dict(self.metrics), **losses}


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint that was just written, whole."""

    path: Path
    step: int
    is_best: bool  # best.pt, and not last.pt


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: with a result, which may be that of a run that was stopped, or by an error."""

    result: TrainResult | None = None
    error: BaseException | None = None


class StopTraining(Exception):  # noqa: N818 - it is no error
    """Raised in a callback: end the run after this step, saved and resumable. Its text is the reason."""


class Callback:
    """Override what you need. An exception other than StopTraining ends the run with its traceback; last.pt stays good.

    A resumed run calls the methods at the same steps as one that was never stopped. Steps that a killed run had done after
    its last checkpoint are done, and told, again.
    """

    def on_start(self, run: RunInfo) -> None:
        """The run begins, or goes on. There is a last.pt from now on."""

    def on_log(self, line: LogLine) -> None:
        """A log interval (`train.log_every` steps) is over."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """The model was evaluated. Called before best.pt and last.pt are written."""

    def on_checkpoint(self, checkpoint: SavedCheckpoint) -> None:
        """best.pt or last.pt was written."""

    def on_end(self, end: RunEnd) -> None:
        """The run is over, in whatever way. Called once for each callback whose `on_start` was done."""


class CallbackList:
    """The callbacks of a process, called in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._waiting = list(callbacks)
        self._started: list[Callback] = []
        self.stopped_by: str | None = None
        """The first one that has asked to stop, and its reason."""

    def start(self, run: RunInfo) -> None:
        """Start them all; those before one that fails are ended with the run."""
        for callback in self._waiting:
            self._call(callback, lambda each: each.on_start(run))
            self._started.append(callback)

    def call(self, act: Callable[[Callback], None]) -> None:
        """Do this with each. One that asks to stop does not keep the others from their turn."""
        for callback in self._started:
            self._call(callback, act)

    def _call(self, callback: Callback, act: Callable[[Callback], None]) -> None:
        try:
            act(callback)
        except StopTraining as stop:
            name = type(callback).__name__
            self.stopped_by = self.stopped_by or (f"{name}: {stop}" if str(stop) else name)

    def end(self, end: RunEnd) -> None:
        """End all that were started, the last first. Raises the first error of theirs, unless the run has one itself."""
        errors: list[Exception] = []
        while self._started:
            try:
                self._call(self._started.pop(), lambda each: each.on_end(end))
            except Exception as error:
                errors.append(error)
        for hidden in errors if end.error is not None else errors[1:]:
            logger.error("a callback's on_end failed too", exc_info=hidden)
        if errors and end.error is None:
            raise errors[0]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The curves' points in a line of metrics.jsonl, by the names that TensorBoard and other trackers show.

    "loss", "loss/rpn_class", "evaluation/AP", "val_loss", "val_losses/...", "learning_rate", ...; null is NaN.
    """
    nested = {"losses": "loss", "metrics": "evaluation", "val_losses": "val_losses"}
    found: dict[str, float] = {}
    for name, value in line.items():
        if name in nested:
            found |= {f"{nested[name]}/{key}": math.nan if number is None else number for key, number in value.items()}
        elif name not in ("kind", "step"):
            found[name] = math.nan if value is None else value
    return found
