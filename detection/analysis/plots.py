"""What the commands that draw curves share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detection.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf", ".jpg")


def label_runs(folders: Sequence[Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each run: those given, or the folders' own; of equal ones as much of the path as tells them apart.

    Raises ConfigError where the labels given are too few, too many or not different.
    """
    if labels is not None:
        if len(labels) != len(folders) or len(set(labels)) != len(labels):
            raise ConfigError(f"--labels needs {len(folders)} different names, got {len(labels)}: {', '.join(labels)}")
        return list(labels)
    parts = [folder.resolve().parts for folder in folders]
    twice = next((folder for number, folder in enumerate(folders) if parts[number] in parts[:number]), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice: give --labels")
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


def colours(count: int) -> list[str] | list[tuple[float, float, float, float]]:
    """As many as there are curves: matplotlib's own ten, and of more than ten none twice."""
    from matplotlib import colormaps

    if count <= 10:
        return [f"C{number}" for number in range(count)]
    return [colormaps["turbo"](number / (count - 1)) for number in range(count)]


def require_picture(file: Path) -> Path:
    """The file, if it can be drawn: to be asked before the work begins. Raises ConfigError for another suffix."""
    if file.suffix.lower() not in PICTURES:
        raise ConfigError(f"cannot draw '{file}': use one of {', '.join(PICTURES)}")
    return file


def save_figure(figure: Figure, file: Path) -> None:
    """Write it in the format of the suffix, one of PICTURES."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
