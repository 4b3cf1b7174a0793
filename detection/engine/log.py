"""What people read of a run while it lasts: log.txt, and a progress bar (plain lines where there is no terminal)."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from detection.engine.callbacks import Callback, Evaluation, LogLine, RunInfo
from detection.engine.writing import writing
from detection.terminal import PrintableFormatter, shows_bars

logger = logging.getLogger(__name__)

LOGGED_PACKAGES = ("detection", "backbones")


def do_nothing() -> None:
    """The default of what is called when something happens."""


class RunLog(Callback):
    """What people see of one run on rank 0; on other ranks (`enabled=False`) it stays silent.

    `on_closed_output` is called when the console cannot be written any more: its reader or its terminal has gone.

    While the context lasts, what the loggers "detection" and "backbones" and those below them record, from level INFO on,
    goes to the console and to log.txt.
    """

    def __init__(
        self,
        output_dir: Path,
        *,
        enabled: bool = True,
        console: Console | None = None,
        on_closed_output: Callable[[], None] = do_nothing,
    ) -> None:
        self.output_dir = output_dir
        self.on_closed_output = on_closed_output
        self.enabled = enabled
        self.console = console or _Console(file=sys.stdout)
        self._steps = 0
        self._handlers: list[logging.Handler] = []
        self._progress: Progress | None = None
        self._previous_levels: dict[str, int] = {}

    def __enter__(self) -> RunLog:
        if self.enabled:
            with writing(self.output_dir):
                self.output_dir.mkdir(parents=True, exist_ok=True)
            file = self.output_dir / "log.txt"
            with writing(file):
                self._attach(_FileHandler(file, encoding="utf-8", errors="backslashreplace"), "%(asctime)s %(message)s")
            self._attach(_ConsoleHandler(self.console, self._close_output), "%(message)s")
        return self

    def _attach(self, handler: logging.Handler, layout: str) -> None:
        handler.setFormatter(PrintableFormatter(layout, datefmt="%Y-%m-%d %H:%M:%S"))
        self._handlers.append(handler)
        for name in LOGGED_PACKAGES:
            package = logging.getLogger(name)
            self._previous_levels.setdefault(name, package.level)
            package.setLevel(logging.INFO)
            package.addHandler(handler)

    def _detach(self) -> None:
        for name, level in self._previous_levels.items():
            package = logging.getLogger(name)
            package.setLevel(level)
            for handler in self._handlers:
                package.removeHandler(handler)
        for handler in self._handlers:
            handler.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._progress is not None:
            with suppress(OSError):  # the terminal has gone
                self._progress.stop()
        self._detach()

    def on_start(self, run: RunInfo) -> None:
        """Show the bar."""
        self._steps = run.steps
        if shows_bars(self.console):
            self._progress = _progress_bar(self.console)
            self._progress.start()
            self._progress.add_task("training", total=run.steps, completed=run.first_step, loss="")

    def _close_output(self, error: OSError) -> None:
        """Write no more to the console, nor, where that is standard output, does anything else."""
        self.console.quiet = True
        self._progress = None
        silence(self.console.file)
        self.on_closed_output()
        logger.warning("the output cannot be written any more (%s): the run ends after this step", error.strerror or error)

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step)

    def on_log(self, line: LogLine) -> None:
        """Say how far the run is, on the bar or in a line."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], loss=f"loss {line['loss']:.4f}")
        logger.info(_sentence(line, self._steps), extra={"on_bar": self._progress is not None})

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Say the numbers."""
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in evaluation.metrics.items())
        logger.info("step %d: %s", evaluation.step, metrics)
        if evaluation.losses:
            total = sum(evaluation.losses.values())
            logger.info("step %d: validation loss %.4f (%s)", evaluation.step, total, describe_losses(evaluation.losses))


class _FileHandler(logging.FileHandler):
    """Logging swallows errors by printing their traceback; a full disk must stop the run in one line instead."""

    def _open(self) -> Any:  # called by __init__
        if Path(self.baseFilename).is_fifo():
            raise OSError(errno.EINVAL, "a pipe, whose reader could be waited for without end", self.baseFilename)
        return super()._open()

    def close(self) -> None:
        """Close the file. What could not be written has been told: of the same once more, at closing, nothing is said."""
        with suppress(OSError):
            super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # called inside `except`
        with writing(Path(self.baseFilename)):
            raise  # noqa: PLE0704


class _Console(Console):
    """Raises BrokenPipeError where rich would end the program."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "its reader has gone")


class _ConsoleHandler(logging.Handler):
    """Prints above the progress bar; what the bar itself shows is left out. Calls `on_closed` where that cannot be written."""

    def __init__(self, console: Console, on_closed: Callable[[OSError], None]) -> None:
        super().__init__()
        self._console = console
        self._on_closed = on_closed

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_bar", False):
            return
        try:
            self._console.print(Text(self.format(record)), soft_wrap=True)
        except OSError as error:
            self._on_closed(error)


def silence(file: IO[str]) -> None:
    """Send what is written to a file of the system's, such as standard output, nowhere: its reader has gone."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), file.fileno())


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


def _sentence(line: LogLine, steps: int) -> str:
    """What log.txt and the console say of a line: `step 20/5000  loss 1.2345 (rpn_class 0.3)  rate 0.001  0.53 s/step ...`."""
    losses = describe_losses(line["losses"])
    left = timedelta(seconds=round((steps - line["step"]) * line["step_time"]))
    return (
        f"step {line['step']}/{steps}  loss {line['loss']:.4f} ({losses})  rate {line['learning_rate']:.3g}  "
        f"{line['step_time']:.3f} s/step (data {line['data_time']:.3f})  {line['images_per_second']:.1f} images/s  "
        f"{line['memory_mb']:.0f} MB  left {left}"
    )


def describe_losses(losses: Mapping[str, float]) -> str:
    """Losses by name, for people: `rpn_class 0.3000, rpn_box 0.1000`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in losses.items())


def peak_memory_mb(device: torch.device) -> float:
    """The greatest memory so far: the GPU's allocator, or the process's resident set; 0 where neither is known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
