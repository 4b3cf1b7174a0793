"""What the commands that draw curves share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detection.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def label_runs(folders: Sequence[Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each run: those given, or the folders' own; of equal ones as much of the path as tells them apart.

    Raises ConfigError where the labels given are too few, too many or not different.
    """
    if labels is not None:
        if len(labels) != len(folders) or len(set(labels)) != len(labels):
            raise ConfigError(f"--labels needs {len(folders)} different names, got {len(labels)}: {', '.join(labels)}")
        return list(labels)
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise ConfigError("the same run is named twice: give --labels")
    longest = max(map(len, parts))
    for length in range(1, longest):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, file: Path) -> None:
    """Write it in the format of the suffix. Raises ConfigError for one that matplotlib does not know."""
    known = figure.canvas.get_supported_filetypes()
    if file.suffix.lstrip(".") not in known:
        raise ConfigError(f"cannot draw '{file}': use one of .{', .'.join(sorted(known))}")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
