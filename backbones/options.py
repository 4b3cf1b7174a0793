"""The options that every backbone is built with. Imports no torch: a config is checked against them before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from backbones.errors import BackboneError

Norm = Literal["bn", "frozen_bn"]
"""BatchNorm, or BatchNorm as a constant scale and offset per channel (appendix A)."""
StemPool = Literal["pad1", "ceil"]
"""The first max-pool of a ResNet: "pad1" pads by one pixel all round, as torchvision's; "ceil", the authors', has no
padding and lets the last window stand over the edge. Windows lie one pixel apart, and an odd size is rounded up or down."""
NUM_STAGES = 5


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
        if self.norm not in get_args(Norm):
            raise BackboneError(f"norm must be one of {list(get_args(Norm))}, got {self.norm!r}")
        if self.freeze_stages not in range(NUM_STAGES + 1):
            raise BackboneError(f"freeze_stages must be 0..{NUM_STAGES}, got {self.freeze_stages!r}")
        if self.num_classes is not None and self.num_classes < 1:
            raise BackboneError(f"num_classes must be at least 1, or None for no classifier, got {self.num_classes!r}")
        if self.stem_pool not in get_args(StemPool):
            raise BackboneError(f"stem_pool must be one of {list(get_args(StemPool))}, got {self.stem_pool!r}")


DEFAULT_OPTIONS = BackboneOptions()
