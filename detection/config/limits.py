"""What the schema is made of: sections, the types of their keys, and how a check of several keys is written.

Each number is finite and bounded, each text printable and of bounded length. Bounds are far above what any experiment uses:
they stop what would only end in gigabytes or in waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict
from pydantic_core import PydanticCustomError

from backbones.errors import MAX_NAME_LENGTH, name_fault, shorten
from backbones.files import expand_home
from detection.config.class_lists import MAX_CLASSES

MAX_NUMBER = 2**63 - 1
"""No whole number of a config is greater."""
MAX_SIDE = 20_000
"""Pixels of a side of the network's input image, at most."""
MAX_STEPS = 10**9
LOADER_TIMEOUT = 300.0
"""Seconds: the default of `data.loader_timeout`."""
MAX_PIXELS = 120_000_000
"""Of an image file, by default: few cameras give more. Decoded it takes 360 MB."""
MAX_IMAGES = 10**9
MIN_TILE = 32
"""Pixels of a tile's side, at least: two cells of the feature map where tiles are not resized."""
MAX_PATH = 4096


def _number(value: Any) -> Any:
    """Refuse what pydantic would turn into a number, and whole numbers that it cannot write into its message."""
    if isinstance(value, bool | str | bytes) or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        raise PydanticCustomError("number", "no number")
    return value


def _text(value: Any) -> Any:
    if name_fault(value) is not None:
        raise PydanticCustomError("text", "no printable text")
    return value


def _year(value: Any) -> Any:
    """A year may be a number: YAML reads 2007 as one."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER else _text(value)


def _path(value: Any) -> Any:
    text = str(value) if isinstance(value, str | PurePath) else ""
    if not text.strip() or "\0" in text or len(text) > MAX_PATH or not _can_be_written(text):
        raise PydanticCustomError("path", "no path")
    return value


def _can_be_written(text: str) -> bool:
    """Whether a file can have this name: bytes that are not UTF-8 can be in it, half characters cannot."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, BeforeValidator(_text), Field(max_length=MAX_NAME_LENGTH)]
Year = Annotated[str, BeforeValidator(_year), Field(max_length=MAX_NAME_LENGTH)]
FilePath = Annotated[Path, BeforeValidator(_path), AfterValidator(expand_home)]

Fraction = Annotated[Real, Field(ge=0, le=1)]
ByClass = Annotated[dict[Text, Fraction], Field(max_length=MAX_CLASSES)]
BelowOne = Annotated[Real, Field(ge=0, lt=1)]
Side = Annotated[Whole, Field(ge=1, le=MAX_SIDE)]
Seconds = Annotated[Real, Field(gt=0, le=31_536_000)]  # up to a year
TileSide = Annotated[Whole, Field(ge=0, le=MAX_SIDE)]  # 0: none; see require_tile
TileOverlap = Annotated[Real, Field(ge=0, le=0.9)]  # with more, a large image would have thousands of tiles
Steps = Annotated[Whole, Field(ge=1, le=MAX_STEPS)]
StepsOrNone = Annotated[Whole, Field(ge=0, le=MAX_STEPS)]
ImagesPerDevice = Annotated[Whole, Field(ge=1, le=100_000)]
Images = Annotated[Whole, Field(ge=0, le=MAX_IMAGES)]
Beta = Annotated[Real, Field(ge=0, le=1000)]
Boxes = Annotated[Whole, Field(ge=1, le=1_000_000)]
AnchorSize = Annotated[Real, Field(ge=1, le=100_000)]
Ratio = Annotated[Real, Field(ge=0.01, le=100)]
Std = Annotated[Real, Field(ge=1e-3, le=1000)]

# Keys that several sections have, with what they mean; the default is the section's.
MaxPixels = Annotated[
    Whole,
    Field(ge=1, le=2**30, description="an image file with more is refused: three bytes of memory for each"),
]  # OpenCV decodes no larger images
Workers = Annotated[Whole, Field(ge=0, le=1024, description="loader processes per training process")]
LoaderTimeout = Annotated[
    Real,
    Field(
        ge=0,
        le=31_536_000,
        description="longest wait, in seconds, for what the workers load, before it is an error; 0: no limit",
    ),
]
BatchSize = Annotated[
    Whole,
    Field(
        ge=1,
        le=1_000_000,
        description="images per step that learning_rate and steps are meant for; another number scales both linearly",
    ),
]
LearningRate = Annotated[Real, Field(gt=0, le=1000, description="before the first drop")]


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def require(condition: bool, sentence: str) -> None:
    """Raise ValueError, which becomes a ConfigError of that sentence, unless values that fit alone fit together too."""
    if not condition:
        raise ValueError(sentence)


def ascending(values: Sequence[float]) -> bool:
    """Whether each value is greater than the one before it."""
    return all(low < high for low, high in pairwise(values))


def require_shorter(key: str, side: int, longer_key: str, longer_side: int) -> None:
    """Raise ValueError where no image could have the shorter side that a key asks for."""
    require(
        side <= longer_side,
        f"{key} asks for a shorter side of {side}, but {longer_key} is {longer_side}: no image would become so large; "
        f"raise {longer_key}, or lower {key}",
    )


def require_tile(key: str, side: int) -> None:
    """Raise ValueError where tiles are asked for that hold nothing."""
    require(
        side == 0 or side >= MIN_TILE,
        f"{key} is {side}: a tile has sides of at least {MIN_TILE} of the image's pixels; raise it, or write 0 for no tiles",
    )


def require_different(key: str, values: Sequence[float]) -> None:
    """Raise ValueError where a list has a value twice."""
    require(len(set(values)) == len(values), f"{key} lists a value twice, {shorten(list(values))}: leave one out")


def require_ious(section: str, negative: float, positive: float, boxes: str) -> None:
    """Raise ValueError where a section's negative_iou is above its positive_iou; `boxes`: what they are thresholds of."""
    require(
        negative <= positive,
        f"{section}.negative_iou is {negative}, above {section}.positive_iou, which is {positive}: {boxes} between them would "
        "be both; lower it",
    )
