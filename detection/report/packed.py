"""Columns of many numbers, small enough for a page: base64 of little-endian bytes. `pictures_data.js` has the way back."""

from __future__ import annotations

import base64
from typing import Literal

import numpy as np

from detection.evaluation.voc import Floats

NOTHING = 2**16 - 1
"""In a column of 16 bits: no such row, no such label."""


def packed(values: np.ndarray, kind: Literal["u1", "u2"]) -> str:
    """Numbers of any shape, row by row, as unsigned ones of 1 or 2 bytes; negative ones become the greatest (NOTHING)."""
    greatest = np.iinfo(kind).max
    whole = np.where(values < 0, greatest, np.minimum(values, greatest))
    return base64.b64encode(whole.astype(f"<{kind}").tobytes()).decode("ascii")


def packed_shares(values: Floats) -> str:
    """Numbers of any shape, cut off at 0 and 1, in steps of 1 / 65535: boxes as shares of their image's sides."""
    return packed(np.rint(values.clip(0, 1) * NOTHING), "u2")
