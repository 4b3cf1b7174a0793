"""What all plots of this package share: labels, colours, figures without a window, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backbones.errors import first_names, name_fault
from backbones.files import replacing
from detection.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE_SUFFIXES = (".png", ".svg", ".pdf", ".jpg")


def label_runs(folders: Sequence[Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each run: those given, or the folders' own; where these are equal, as much of the paths as differs.

    Raises ConfigError where the labels given are too few, too many or not different.
    """
    if labels is not None:
        if len(labels) != len(folders) or len(set(labels)) != len(labels):
            raise ConfigError(
                f"labels (--labels) must be {len(folders)} different names, got {len(labels)}: {first_names(labels)}"
            )
        for label in labels:
            if (fault := name_fault(label)) is not None:
                raise ConfigError(f"a label (--labels) {fault}")
        return list(labels)
    parts = [Path(os.path.realpath(folder)).parts for folder in folders]  # resolve() fails at a circle of links
    for number, folder in enumerate(folders):
        if parts[number] in parts[:number]:
            raise ConfigError(f"{folder} is named twice: give each a label of its own (--labels)")
    longest = max(map(len, parts))
    for length in range(1, longest):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def label_weights(files: Sequence[Path], labels: Sequence[str] | None) -> list[str]:
    """A name for each file of weights: those given, or the runs' folders.

    Where several lie in one folder, or are names of the zoo, their own names. Raises ConfigError as `label_runs`.
    """
    folders = {Path(os.path.realpath(file)).parent for file in files if file.is_file()}
    if len(folders) == len(files):
        return label_runs([file.parent for file in files], labels)
    return label_runs([file.with_suffix("") for file in files], labels)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, without a window."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def curve_colors(count: int) -> list[str] | list[tuple[float, float, float, float]]:
    """A different colour for each of `count` curves: matplotlib's own ten, or evenly from a colour map for more."""
    from matplotlib import colormaps

    if count <= 10:
        return [f"C{number}" for number in range(count)]
    return [colormaps["turbo"](number / (count - 1)) for number in range(count)]


def require_picture(file: Path) -> None:
    """Raise ConfigError if a file's suffix is none of PICTURE_SUFFIXES; to be called before the work begins."""
    if file.suffix.lower() not in PICTURE_SUFFIXES:
        raise ConfigError(f"cannot draw '{file}': use one of {', '.join(PICTURE_SUFFIXES)}")


def save_figure(figure: Figure, file: Path) -> None:
    """Write it whole in the format of the suffix, one of PICTURE_SUFFIXES. Raises OSError, an old file intact."""
    with replacing(file) as picture:
        figure.savefig(picture, dpi=130, format=file.suffix[1:].lower())
