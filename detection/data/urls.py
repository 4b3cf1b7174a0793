"""Images at an address of the web, by the rules for downloads: bounded in size and time, from servers that may be hostile."""

from __future__ import annotations

import re

from backbones.errors import printable
from backbones.weights.request import DownloadError, Limits, read_url
from detection.config import MAX_PIXELS
from detection.data.images import LoadedImage, load_encoded
from detection.errors import DatasetError

MAX_BYTES = 2**28
"""Of an image's file."""
_WITHIN = 300.0  # seconds for the whole of it


def is_url(text: object) -> bool:
    """Whether this is the address of a file on the web, http or https, and no path."""
    return isinstance(text, str) and re.match(r"https?://", text, re.IGNORECASE) is not None


def load_url(url: str, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The image at an address, as `load_image` gives a file's. Raises DatasetError: no answer, or no image of that size.

    $RESDET_DOWNLOAD_TIMEOUT and $RESDET_DOWNLOAD_LEAST_RATE bound the waiting, as for weights.
    """
    try:
        data = read_url(url, Limits.from_environment(MAX_BYTES), _WITHIN)
    except DownloadError as error:
        raise DatasetError(f"cannot download {printable(url)}: {error}") from None
    return load_encoded(data, printable(url), max_pixels)
