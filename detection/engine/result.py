"""What a run of the loop returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainResult:
    """How a run ended. `best` is the best value of `best_metric`; `seconds` counts the parts of a resumed run too."""

    steps: int
    metrics: dict[str, float]  # of the last evaluation
    best: float | None
    seconds: float
    output_dir: Path  # holds last.pt, best.pt and the logs
    signal: int | None = None
    stopped_by: str | None = None  # the callback or the key that ended it before its last step, and why
    asked_to_stop: str | None = None  # the callback that asked for the end, be it at the last step, and why

    @property
    def interrupted(self) -> bool:
        """Whether a signal or the end of its output's reader ended it before its last step."""
        return self.signal is not None
