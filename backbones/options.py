"""The options that every backbone is built with. Imports no torch: a config is checked against them before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from backbones.errors import BackboneError, shorten

Norm = Literal["bn", "frozen_bn"]
"""BatchNorm, or BatchNorm as a constant scale and offset per channel (appendix A)."""
StemPool = Literal["pad1", "ceil"]
"""The first max-pool of a ResNet: "pad1" pads by one pixel all round, as torchvision's; "ceil", the authors', has no
padding and lets the last window stand over the edge. Windows lie one pixel apart, and an odd size is rounded up or down."""
Neck = Literal["none", "fpn"]
"""What a detector looks at: the map c4, or a feature pyramid on c2..c5."""
NeckNorm = Literal["none", "bn"]
C4_STRIDE = 16
"""Of c4, in ResNets."""
FPN_STRIDES = (4, 8, 16, 32, 64)
"""Of P2..P6."""
NUM_STAGES = 5
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is built. Raises BackboneError naming the option, the value and what it may be.

    `num_classes` None: without a classifier. `stride_in_1x1`: a bottleneck's stride is in its first 1x1 convolution, not in
    its 3x3. The first `freeze_stages` stages (0..5) are not trained. A network that has no such part ignores an option.
    """

    norm: Norm = "bn"
    num_classes: int | None = None
    stride_in_1x1: bool = False
    freeze_stages: int = 0
    stem_pool: StemPool = "pad1"

    def __post_init__(self) -> None:
        _require("norm", self.norm, _is_one_of(self.norm, Norm), f"one of {list(get_args(Norm))}")
        _require("freeze_stages", self.freeze_stages, _is_number(self.freeze_stages, 0, NUM_STAGES), f"0..{NUM_STAGES}")
        classes = f"1..{MAX_CLASSES}, or None for no classifier"
        _require(
            "num_classes", self.num_classes, self.num_classes is None or _is_number(self.num_classes, 1, MAX_CLASSES), classes
        )
        _require("stem_pool", self.stem_pool, _is_one_of(self.stem_pool, StemPool), f"one of {list(get_args(StemPool))}")
        _require("stride_in_1x1", self.stride_in_1x1, isinstance(self.stride_in_1x1, bool), "True or False")


def _require(option: str, value: object, fits: bool, choices: str) -> None:
    if not fits:
        raise BackboneError(f"{option} must be {choices}, got {shorten(value)}")


def _is_one_of(value: object, choices: Any) -> bool:
    return isinstance(value, str) and value in get_args(choices)


def _is_number(value: object, low: int, high: int) -> bool:
    """Whether this is a whole number in [low, high]; True is none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


DEFAULT_OPTIONS = BackboneOptions()
