"""Many numbers as short text, small enough for a page: base64 of bytes, in two codings.

`packed`: columns of numbers of one or two bytes each, little-endian; `pictures_data.js` has the way back. `packed_small`: whole
numbers most of which are small, as LEB128: each becomes bytes of seven bits, the lowest first, with the high bit set in all but
its last, so one byte below 128 and two below 16,384; `report.unpack` of `common.js` has the way back.
"""

from __future__ import annotations

import base64
from typing import Literal

import numpy as np
import numpy.typing as npt

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


MAX_BYTES = 5
"""Of a number in `packed_small`."""


def packed_small(values: npt.ArrayLike) -> str:
    """Numbers of any shape, row by row, each whole and from 0 to 2^35 - 1."""
    numbers = np.asarray(values, dtype=np.int64).reshape(-1)
    assert not len(numbers) or 0 <= numbers.min() <= numbers.max() < 1 << 7 * MAX_BYTES, "numbers that cannot be packed"
    rest = numbers[:, None] >> 7 * np.arange(MAX_BYTES)
    used = rest > 0
    used[:, 0] = True
    content = rest & 127
    content[:, :-1] |= used[:, 1:] * 128
    return base64.b64encode(content[used].astype(np.uint8).tobytes()).decode("ascii")
