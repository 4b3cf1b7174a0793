"""What all trackers do alike: one run of theirs for one of ours, resumed or not, and no training lost by a server's failure."""

from __future__ import annotations

import importlib.util
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from backbones.errors import shorten
from detection.engine.callbacks import Callback, Evaluation, LogLine, RunEnd, RunInfo, scalars
from detection.engine.writing import writing
from detection.errors import ConfigError, TrainingError
from detection.files import read_json, write_json

logger = logging.getLogger(__name__)


class Tracker(Callback):
    """Shows a run's numbers in a tracker, by the names of TensorBoard's curves.

    The id of the tracker's run is kept in the output folder, so that a resumed run goes on in the same one. What fails at the
    start ends the run with one line; what fails later is a warning: the numbers are in metrics.jsonl too.
    """

    package: ClassVar[str]
    """Name of the package, of the extra that installs it, and of the file that keeps the id."""

    def __init__(self, name: str | None = None) -> None:
        """`name`: of the run in the tracker; None: of its output folder. Raises ConfigError where the package is absent."""
        if importlib.util.find_spec(self.package) is None:
            raise ConfigError(f"{self.package} is not installed: pip install 'resdet[{self.package}]'")
        self.name = name
        self._failed = False

    @abstractmethod
    def open(self, run: RunInfo, name: str, run_id: str | None) -> str:
        """Begin the tracker's run, or go on with that of this id; returns its id. Raises TrainingError."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add finite values to the curves of these names."""

    @abstractmethod
    def close(self, end: RunEnd) -> None:
        """End the tracker's run."""

    def on_start(self, run: RunInfo) -> None:
        """Open the tracker's run, and keep its id."""
        self._failed = False
        file = run.output_dir / f"{self.package}.json"
        run_id = self.open(run, self.name or run.output_dir.resolve().name, read_run_id(file) if run.resumed else None)
        with writing(file):
            write_json(file, {"run_id": run_id})

    def on_log(self, line: LogLine) -> None:
        """Log the losses, the rate, the speed."""
        self._log(line)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Log the metrics."""
        self._log(evaluation.line())

    def _log(self, line: LogLine) -> None:
        values = {name: value for name, value in scalars(line).items() if math.isfinite(value)}
        self._try(lambda: self.log(line["step"], values))

    def on_end(self, end: RunEnd) -> None:
        """End the tracker's run."""
        self._try(lambda: self.close(end))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of many kinds: the server's, the network's, the package's
            if not self._failed:
                logger.warning("%s fails, and the run goes on without it: %s", self.package, shorten(str(error)))
            self._failed = True


def read_run_id(file: Path) -> str | None:
    """The id of the tracker's run that goes with a run; None if it had none. Raises DatasetError or TrainingError."""
    if not file.exists():
        return None
    values: Any = read_json(file)
    run_id = values.get("run_id") if isinstance(values, dict) else None
    if not isinstance(run_id, str) or not 0 < len(run_id) <= 256:
        raise TrainingError(f"{file} holds no run_id: remove it, and the tracker begins a run of its own")
    return run_id


def one_line(error: Exception) -> str:
    """The first line of a package's error, which may have many."""
    return shorten(next(iter(str(error).strip().splitlines()), type(error).__name__))[1:-1]
