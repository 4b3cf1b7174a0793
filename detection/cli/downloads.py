"""Weights by name on the command line: a bar while they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from backbones.weights.zoo import Kind


def weights_file(weights: Path, kind: Kind | None = None) -> Path:
    """The file itself, or the checkpoint that a name of the zoo stands for. Raises CheckpointError."""
    from detection.weights import zoo

    with shown(f"downloading {weights}") as report:
        return zoo.weights_file(weights, kind, report)


def published_file(weights: Path) -> Path:
    """The file itself, or the one that was published under a name of the zoo. Raises CheckpointError."""
    from backbones.weights import zoo

    entry = zoo.find(weights)
    if entry is None:
        return weights
    with shown(f"downloading {weights}") as report:
        return zoo.published_file(entry, report)


@contextmanager
def shown(action: str) -> Iterator[Callable[[int, int | None], None]]:
    """From the first report on: a bar on a terminal, a line elsewhere, nothing on other ranks than 0."""
    from detection.engine.distributed import World

    console = Console(stderr=True, quiet=not World.from_environment().is_main)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(action, total=None, visible=False)

        def report(done: int, total: int | None) -> None:
            if not (console.is_terminal or progress.tasks[0].visible):
                console.print(action, soft_wrap=True, markup=False, highlight=False)
            progress.update(task, completed=done, total=total, visible=True)

        yield report
