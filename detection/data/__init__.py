"""Data sets on disk -> batches: `load_dataset`, then `train_loader` or `test_loader`."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detection.data.catalog import Dataset, load_dataset, load_split
    from detection.data.images import read_image
    from detection.data.loader import test_loader, train_loader

# Albumentations looks for a newer version of itself online when it is imported, unless told not to before.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__all__ = ["Dataset", "load_dataset", "load_split", "read_image", "test_loader", "train_loader"]

_HOMES = {
    "Dataset": "catalog",
    "load_dataset": "catalog",
    "load_split": "catalog",
    "read_image": "images",
    "test_loader": "loader",
    "train_loader": "loader",
}


def __getattr__(name: str) -> Any:
    # Reading an XML file does not need albumentations, which takes seconds to import.
    if name in _HOMES:
        return getattr(importlib.import_module(f"detection.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'detection.data' has no attribute '{name}'")
