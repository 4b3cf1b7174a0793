"""A folder of labelled images, or a file of labels, as the data of a config: its format and splits are recognised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from backbones.errors import printable
from detection.config import Config, DataConfig, FolderFormat, FolderSource, Source
from detection.data.catalog import resolve_root
from detection.data.formats.recognise import WHOLE, recognise

logger = logging.getLogger(__name__)


def config_of_folder(
    folder: Path,
    format: FolderFormat = "auto",
    annotations: Path | None = None,
    tell: Callable[[str], object] = logger.info,
) -> Config:
    """The data of a folder of labelled images, or of a file of labels, with the splits that it has; all classes are its own.

    A folder without splits is one to train on. `annotations`, relative to it, are the labels that count where it has several.
    `tell` gets a sentence about what a folder was taken for. Raises DatasetError.
    """
    root = resolve_root(folder)
    if format != "auto":
        return _config_of({"train": (FolderSource(format=format, root=folder, annotations=annotations),)})
    found = recognise(root, annotations)
    tell(found.sentence)
    whole = next((found.splits[name] for name in (WHOLE, "train", "trainval") if name in found.splits), ())
    named: dict[str, tuple[Source, ...]] = {
        "train": whole,
        "val": found.splits.get("val", ()),
        "test": found.splits.get("test", ()),
    }
    if not any(named.values()):
        named["train"] = found.sources()
    used = [sources for sources in named.values() if sources]
    others = [name for name, sources in found.splits.items() if sources not in used]
    if others:
        tell(f"left out, being no train, val or test: {', '.join(map(printable, others))}")
    return _config_of(named)


def _config_of(sources: Mapping[str, tuple[Source, ...]]) -> Config:
    return Config(data=DataConfig(classes="auto", **{"train": (), "val": (), "test": (), **sources}))
