"""Errors that a user can cause and mend: one clear line, exit code 2, no traceback.

Each message names the file, key or box, the value found, and the fix. Anything else that is raised is a bug of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.errors import BackboneError, CheckpointError

    USER_ERRORS: tuple[type[Exception], ...]


class ConfigError(ValueError):
    """A configuration file, override or command-line value cannot be used."""


class DatasetError(ValueError):
    """An image or annotation file is missing, unreadable or inconsistent."""


class TrainingError(ValueError):
    """Training cannot go on: a non-finite loss, or an output folder that holds another run."""


OWN_ERRORS = (ConfigError, DatasetError, TrainingError)
"""USER_ERRORS but those of backbones."""

__all__ = ["OWN_ERRORS", "USER_ERRORS", "BackboneError", "CheckpointError", "ConfigError", "DatasetError", "TrainingError"]


def __getattr__(name: str) -> Any:
    # backbones imports torch, which takes seconds; a command's help and a mistake in a config do not need it.
    if name not in __all__:
        raise AttributeError(f"module 'detection.errors' has no attribute '{name}'")
    from backbones.errors import BackboneError, CheckpointError

    known: dict[str, Any] = {"BackboneError": BackboneError, "CheckpointError": CheckpointError}
    return known.get(name, (*OWN_ERRORS, *known.values()))
