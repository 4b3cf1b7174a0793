"""What commands print, and what they show while they work: progress bars, and the bar of a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from backbones.errors import printable
from detection.terminal import new_console, plain, plain_column, shows_bars

if TYPE_CHECKING:
    from backbones.weights.format import Kind
    from detection.engine.result import TrainResult
    from detection.inference.detector import Detector
    from detection.inference.ensemble import Ensemble
    from detection.structures import Detections, ImageId, Record

FOR_THE_SERVER = "the split has no annotations: the detections are for the test server"


def say(line: object, console: Console | None = None) -> None:
    """Print one line for people, on stdout unless a console is given. Names in it are shown as they are, never as markup."""
    (console or new_console()).print(plain(line), soft_wrap=True)


def tell(what: str | Table) -> None:
    """Print a line or a table for people; in a distributed run on rank 0 only."""
    if is_main_process():
        new_console().print(plain(what) if isinstance(what, str) else what, soft_wrap=True)


def exit_code_if_stopped(result: TrainResult) -> int | None:
    """The exit code of a run that a signal stopped, 128 + the signal's number, after saying so; None for a whole run."""
    return None if result.signal is None else tell_stopped(result.signal, f"at step {result.steps}")


def tell_stopped(signal: int, where: str, go_on: str = "with --resume and without --weights") -> int:
    """Say where a signal stopped a run, and how the same command is given to go on; returns the exit code."""
    tell(f"stopped {where}; to go on, give the same command {go_on}")
    return 128 + signal


def describe_errors(metrics: Mapping[str, float]) -> str:
    """A classifier's errors, fractions from 0 to 1, in per cent as papers print them."""
    return f"top-1 error {metrics['top1_error']:.2%}, top-5 error {metrics['top5_error']:.2%}"


def progress_bar(console: Console) -> Progress:
    """A bar that counts images on a terminal, and disappears when it is done; nothing elsewhere."""
    columns = (plain_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not shows_bars(console))


@contextmanager
def evaluating_processes(device: str) -> Iterator[Console]:
    """Connect the processes of torchrun for the time of an evaluation on --device; the console of all but rank 0's is quiet."""
    from detection.engine.distributed import World
    from detection.engine.group import process_group

    world = World.from_environment(device)
    with process_group(world):
        yield new_console(quiet=not world.is_main)


def is_main_process() -> bool:
    """Whether this process writes what several of torchrun's have found."""
    from detection.engine.distributed import environment_ranks

    return environment_ranks()[0] == 0


def predict_split(
    model: Detector | Ensemble, weights: str, records: Sequence[Record], console: Console
) -> dict[ImageId, Detections]:
    """Print which `weights` see how many images, and predict with a bar, each process of several its share.

    Raises DatasetError for an unreadable image.
    """
    from detection.engine.distributed import World, environment_ranks
    from detection.inference.dataset import predict_together

    say(f"{weights}: {len(records)} images", console)
    with progress_bar(console) as progress:
        task = progress.add_task("detecting", total=len(records))
        return predict_together(
            model,
            records,
            World(*environment_ranks(), model.device),
            workers=model.config.data.workers,
            report=lambda done: progress.update(task, completed=done),
        )


def fetch_weights(weights: Path, kind: Kind | None = None) -> Path:
    """The file itself, or the checkpoint that a name of the zoo stands for, downloaded with a bar. Raises CheckpointError."""
    from detection.weights import zoo

    with download_progress(printable(f"downloading {weights}")) as report:
        return zoo.resolve_weights(weights, kind, report)


def fetch_published_file(weights: Path) -> Path:
    """The file itself, or the unconverted one that was published under a name of the zoo. Raises CheckpointError."""
    from backbones.weights import zoo

    entry = zoo.find_published(weights)
    if entry is None:
        return weights
    with download_progress(printable(f"downloading {weights}")) as report:
        return zoo.published_file(entry, report)


@contextmanager
def download_progress(action: str) -> Iterator[Callable[[int, int | None], None]]:
    """A callback for (bytes done, bytes in all). From its first call on: a bar on a terminal, else one line of text.

    Only rank 0 of a distributed run shows anything.
    """
    console = new_console(stderr=True, quiet=not is_main_process())
    columns = (plain_column("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not shows_bars(console)) as progress:
        task = progress.add_task(action, total=None, visible=False)

        def report(done: int, total: int | None) -> None:
            if not (shows_bars(console) or progress.tasks[0].visible):
                say(action, console)
            progress.update(task, completed=done, total=total, visible=True)

        yield report
