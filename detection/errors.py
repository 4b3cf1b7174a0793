"""Errors that a user can cause and mend: one clear line, exit code 2, no traceback.

Each message names the file, key or box, the value found, and the fix. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations

from backbones.errors import BackboneError, CheckpointError, did_you_mean, nearest

__all__ = [
    "USER_ERRORS",
    "BackboneError",
    "BadImageError",
    "CheckpointError",
    "ConfigError",
    "DatasetError",
    "MissingImageError",
    "OtherProcessError",
    "TrainingError",
    "did_you_mean",
    "nearest",
]


class ConfigError(ValueError):
    """A configuration file, override or command-line value cannot be used."""


class DatasetError(ValueError):
    """An image or annotation file is missing, unreadable or inconsistent."""


class BadImageError(DatasetError):
    """An image cannot be read. `data.on_bad_image: skip` leaves such images out."""


class MissingImageError(DatasetError):
    """A label file names an image that is not there. `data.on_missing_image: skip` leaves such images out, as its text says."""

    def __str__(self) -> str:
        return f"{self.args[0]} (data.on_missing_image: skip would leave it out)"


class TrainingError(ValueError):
    """Training cannot go on: a non-finite loss, or an output folder that holds another run."""


class OtherProcessError(Exception):
    """The `__cause__` of an error that another process of a distributed run raised first, and tells the user."""


USER_ERRORS = (BackboneError, CheckpointError, ConfigError, DatasetError, TrainingError)
