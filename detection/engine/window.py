"""The losses since the last log line: averaged for the log, and checked for values that are not finite.

On a GPU a loss is known only when the device has caught up. Each is therefore kept on its device, with the files it came
from, and checked when the log is due; on a CPU a check costs nothing and is made at every step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from detection.config import TrainConfig

GRADIENT_NORM = "gradient_norm"
LOG_ONLY_PREFIX = "train_"
"""Scalars whose names begin so are logged, and not part of the loss."""


@dataclass(frozen=True)
class Problem:
    """A value that is not finite. `is_cause`: a loss, which in one process makes the common gradient bad in all."""

    is_cause: bool
    message: str


@dataclass
class _Pending:
    """Scalars of one micro-batch, or a step's gradient norm, still on the device."""

    step: int
    values: dict[str, Tensor]
    files: Sequence[str]


@dataclass
class LogWindow:
    """Sums of the losses and of the time since the last log line of this process."""

    images: int = 0
    steps: int = 0
    data_seconds: float = 0.0
    seconds: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _pending: list[_Pending] = field(default_factory=list)

    def add_losses(self, step: int, losses: dict[str, Tensor], files: Sequence[str]) -> None:
        """Note the losses of one micro-batch."""
        self._pending.append(_Pending(step, {name: loss.detach() for name, loss in losses.items()}, files))

    def add_gradient_norm(self, step: int, norm: Tensor) -> None:
        """Note the norm of a whole step's gradient; the culprits of a bad one are the step's images."""
        files = [file for pending in self._pending if pending.step == step for file in pending.files]
        self._pending.append(_Pending(step, {GRADIENT_NORM: norm.detach()}, files))

    def check(self, section: str = TrainConfig.key) -> Problem | None:
        """Wait for the noted values; describe the first that is not finite. `section` is the solver's in the config."""
        pending, self._pending = self._pending, []
        if not pending:
            return None
        # One copy for all: each would wait for the device.
        flat = torch.stack([value.float() for item in pending for value in item.values.values()]).tolist()
        numbers = iter(flat)
        for item in pending:
            for name in item.values:
                value = next(numbers)
                if not math.isfinite(value):
                    return Problem(name != GRADIENT_NORM, describe_problem(item.step, name, value, item.files, section))
                self.totals[name] = self.totals.get(name, 0.0) + value
                self.counts[name] += 1
        return None

    def forget(self, step: int) -> None:
        """Drop what was noted of a step that will not be finished."""
        self._pending = [item for item in self._pending if item.step != step]

    def means(self) -> dict[str, float]:
        """The mean of each checked value, by name."""
        return {name: total / self.counts[name] for name, total in self.totals.items()}

    def state(self) -> dict[str, Any]:
        """The sums so far, so that a resumed run logs the same means. Speed is not part of it."""
        return {"totals": dict(self.totals), "counts": dict(self.counts)}

    @staticmethod
    def from_state(state: dict[str, Any]) -> LogWindow:
        """The inverse of `state`."""
        return LogWindow(totals=dict(state["totals"]), counts=Counter(state["counts"]))


def describe_problem(step: int, name: str, value: float, files: Sequence[str], section: str) -> str:
    """The message of a training stopped by a value that is not finite. `step` counts from 1, as in the log."""
    what = "the norm of the gradient" if name == GRADIENT_NORM else f"loss '{name}'"
    images = ", ".join(str(file) for file in files) or "unknown"
    return (
        f"step {step}: {what} is {value}; images: {images}. Lower {section}.learning_rate, lengthen {section}.warmup_steps or "
        f"set {section}.clip_norm, and look at these images' annotations"
    )
