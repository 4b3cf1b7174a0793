"""What a config leaves to the data, looked up in them: its classes, the formats of its folders, the images held out."""

from __future__ import annotations

import logging
from collections.abc import Callable

from detection.config import Config

logger = logging.getLogger(__name__)


def settle_config(config: Config, tell: Callable[[str], object] = logger.info) -> Config:
    """The same experiment without `auto`: sources by their formats, classes by their names. A settled config stays.

    `tell` gets a sentence for each thing that was found out. Raises ConfigError or DatasetError.
    """
    return config
