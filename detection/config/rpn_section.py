"""The Region Proposal Network of a detection experiment: its anchors, what they learn, and the proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from detection.config.limits import (
    MAX_SIDE,
    AnchorSize,
    Beta,
    Boxes,
    Flag,
    Fraction,
    Ratio,
    Real,
    Section,
    Whole,
    require,
    require_different,
    require_ious,
)

MAX_CELL_ANCHORS = 1000


class RpnConfig(Section):
    """Region Proposal Network (Faster R-CNN, section 3.1)."""

    channels: Whole = Field(512, ge=1, le=8192, description="width of the 3x3 convolution")
    convs: Whole = Field(1, ge=1, le=8, description="3x3 convolutions, one after the other; as torchvision's _v2: 2")
    anchor_sizes: tuple[AnchorSize, ...] = Field(
        (128, 256, 512),
        min_length=1,
        max_length=100,
        description="square roots of the anchors' areas; with a pyramid one for each of P2 to P6",
    )
    anchor_ratios: tuple[Ratio, ...] = Field((0.5, 1.0, 2.0), min_length=1, max_length=100, description="height / width")
    anchor_offset: Fraction = Field(
        0.0,
        description="in cells: cell (y, x) is centred on pixel 16 (y + offset), 16 (x + offset); as py-faster-rcnn: 0.5",
    )
    round_anchors: Flag = Field(
        False,
        description="as torchvision: corners of anchors in whole pixels, and cells as many pixels apart as fit the padded "
        "image, which on P6 may be fewer than 64",
    )
    positive_iou: Fraction = Field(
        0.7, description="an anchor with at least this IoU is positive, and so is each box's best anchor"
    )
    negative_iou: Fraction = Field(0.3, description="an anchor with a lower IoU with every box is negative")
    sample_size: Boxes = Field(256, description="anchors per image that enter the loss")
    positive_fraction: Fraction = Field(0.5, description="greatest share of positives in the sample")
    average_over: Literal["sampled", "sample_size"] = Field(
        "sampled",
        description="both losses are divided by the number of anchors sampled, or by sample_size per image as in detectron2",
    )
    ignore_straddling: Flag = Field(True, description="leave anchors that cross the image out of the loss")
    anchors_on_padding: Flag = Field(
        False, description="anchors centred on a batch's padding are sampled and proposed too, as in detectron2"
    )
    smooth_l1_beta: Beta = Field(1 / 9, description="1 / sigma^2 with sigma = 3; 0 is plain L1")
    nms_threshold: Fraction = Field(0.7, description="IoU threshold of the proposals' NMS")
    pre_nms_train: Boxes = Field(12000, description="best anchors kept before NMS, training")
    post_nms_train: Boxes = Field(2000, description="proposals per image, training")
    pre_nms_test: Boxes = Field(6000, description="best anchors kept before NMS, test")
    post_nms_test: Boxes = Field(300, description="proposals per image, test")
    min_size: Real = Field(16, ge=0, le=MAX_SIDE, description="least width and height of a proposal")
    ignore_coverage: Fraction = Field(
        0.5, description="an anchor with this share of its area in a crowd or difficult region is never a negative"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> RpnConfig:
        require_ious("rpn", self.negative_iou, self.positive_iou, "an anchor")
        require_anchors(self.anchor_sizes, self.anchor_ratios)
        for phase, before, after in (
            ("train", self.pre_nms_train, self.post_nms_train),
            ("test", self.pre_nms_test, self.post_nms_test),
        ):
            require(
                before >= after,
                f"rpn.post_nms_{phase} is {after}, above rpn.pre_nms_{phase}, which is {before}: NMS leaves no more than "
                "it gets; lower the one, or raise the other",
            )
        return self


def require_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> None:
    """Raise ValueError where rpn.anchor_sizes and rpn.anchor_ratios make too many anchors per cell, or one of them twice."""
    anchors = len(sizes) * len(ratios)
    require(
        anchors <= MAX_CELL_ANCHORS,
        f"rpn.anchor_sizes and rpn.anchor_ratios make {anchors} anchors per cell, more than {MAX_CELL_ANCHORS}: list fewer",
    )
    require_different("rpn.anchor_sizes", sizes)
    require_different("rpn.anchor_ratios", ratios)
