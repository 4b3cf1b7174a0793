"""The log of a run: metrics.jsonl, TensorBoard, log.txt, and a progress bar (plain lines where there is no terminal)."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from detection.engine.events import EventFile
from detection.errors import TrainingError
from detection.files import MAX_METRICS_BYTES, METRICS_FILE, parse_metrics, plain_json, read_regular, write_whole
from detection.terminal import PrintableFormatter

logger = logging.getLogger(__name__)

LOGGED_PACKAGES = ("detection", "backbones")
_FULL, _IN_THE_WAY = "free some space", "move away what is in its place"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ELOOP: _IN_THE_WAY,
    errno.EINVAL: _IN_THE_WAY,
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs, as too many files are open,",
}
LogLine = dict[str, Any]
"""One line of metrics.jsonl: `step`, and what was measured there."""
OnLog = Callable[[LogLine], object]
"""Called on rank 0 with each line of metrics.jsonl, once it is written: its `kind` is "train" or "evaluation"."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context for writing `path`: a full disk or a forbidden folder raises TrainingError, which says what to do."""
    try:
        yield
    except OSError as error:
        fixes = [_FIXES[error.errno]] if error.errno in _FIXES else []
        fix = " or ".join([*fixes, "choose another output folder (--output-dir)"])
        raise TrainingError(f"cannot write {path}: {error.strerror or error}; {fix}") from None


def do_nothing() -> None:
    """The default of what is called when something happens."""


class RunLog:
    """The log of one run on rank 0; on other ranks (`enabled=False`) every method does nothing.

    `before_write` is called before each line of metrics.jsonl, `on_closed_output` when the console cannot be written any more:
    its reader or its terminal has gone.

    While the context lasts, what the loggers "detection" and "backbones" and those below them record, from level INFO on,
    goes to the console and to log.txt.
    """

    def __init__(
        self,
        output_dir: Path,
        steps: int,
        *,
        enabled: bool = True,
        console: Console | None = None,
        on_log: OnLog | None = None,
        before_write: Callable[[], None] = do_nothing,
        on_closed_output: Callable[[], None] = do_nothing,
    ) -> None:
        self.output_dir = output_dir
        self.before_write = before_write
        self.on_closed_output = on_closed_output
        self.steps = steps
        self.enabled = enabled
        self.console = console or _Console(file=sys.stdout)
        self.on_log = on_log
        self._handlers: list[logging.Handler] = []
        self._progress: Progress | None = None
        self._events: EventFile | None = None
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
        if self._events is not None:
            with writing(self.output_dir / "tensorboard"):
                self._events.close()

    def start(self, step: int, keep: Callable[[LogLine], bool]) -> None:
        """Open the files at `step`. Of the lines that an earlier part of the run wrote, those stay that `keep` accepts."""
        if not self.enabled:
            return
        with writing(self.output_dir / METRICS_FILE):
            rewrite_lines(self.output_dir / METRICS_FILE, keep)
        with writing(self.output_dir / "tensorboard"):
            self._events = EventFile(self.output_dir / "tensorboard", step + 1)
        if self.console.is_terminal:
            self._progress = _progress_bar(self.console)
            self._progress.start()
            self._progress.add_task("training", total=self.steps, completed=step, loss="")

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

    def record_interval(self, line: LogLine) -> None:
        """Record a log interval: `step`, `loss`, `losses`, and plain numbers."""
        if not self.enabled:
            return
        self._write({"kind": "train", **line}, {"loss": line["loss"], **_prefixed("loss", line["losses"]), **_numbers(line)})
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], loss=f"loss {line['loss']:.4f}")
        logger.info(_sentence(line, self.steps), extra={"on_bar": self._progress is not None})

    def record_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Record the numbers of an evaluation."""
        if not self.enabled:
            return
        self._write({"kind": "evaluation", "step": step, "metrics": metrics}, _prefixed("evaluation", metrics))
        logger.info("step %d: %s", step, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def _write(self, line: LogLine, scalars: dict[str, float]) -> None:
        path = self.output_dir / METRICS_FILE
        line = plain_json(line)
        self.before_write()
        # Opened for each line: a killed run loses none, and the file may be looked at or moved meanwhile.
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        with writing(self.output_dir / "tensorboard"):
            if self._events is not None:
                self._events.add_scalars(line["step"], scalars)
        if self.on_log is not None:
            self.on_log(line)


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


def rewrite_lines(path: Path, keep: Callable[[LogLine], bool]) -> None:
    """Keep the records of a metrics.jsonl that `keep` accepts; an absent file becomes an empty one.

    Lines that are no records are left out with a warning; one that a killed run has left unfinished, without. Raises OSError.
    """
    records, faults = parse_metrics(read_regular(path, MAX_METRICS_BYTES) if path.exists() else b"")
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        logger.warning("%s, %s%s: left out, the other lines stay", path, faults[0], more)
    kept = [_as_json(line, value) for line, value in records if keep(value)]
    write_whole(path, b"".join(line + b"\n" for line in kept))


def _as_json(line: bytes, value: LogLine) -> bytes:
    """The line as it is, or without the NaN that runs before this version wrote, which JSON has not."""
    plain = plain_json(value)
    return line if plain == value else json.dumps(plain, allow_nan=False).encode()


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)


def _prefixed(prefix: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _numbers(line: LogLine) -> dict[str, float]:
    """The numbers of a line beside the losses: speed and solver."""
    return {name: value for name, value in line.items() if name not in ("step", "loss", "losses")}


def _sentence(line: LogLine, steps: int) -> str:
    """What log.txt and the console say of a line: `step 20/5000  loss 1.2345 (rpn_class 0.3)  rate 0.001  0.53 s/step ...`."""
    parts = ", ".join(f"{name} {value:.4f}" for name, value in line["losses"].items())
    left = timedelta(seconds=round((steps - line["step"]) * line["step_time"]))
    return (
        f"step {line['step']}/{steps}  loss {line['loss']:.4f} ({parts})  rate {line['learning_rate']:.3g}  "
        f"{line['step_time']:.3f} s/step (data {line['data_time']:.3f})  {line['images_per_second']:.1f} images/s  "
        f"{line['memory_mb']:.0f} MB  left {left}"
    )


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
