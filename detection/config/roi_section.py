"""What is done on each region of a detection experiment: its class, its box, its mask."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from detection.config.limits import Beta, Boxes, Flag, Fraction, Section, Std, Whole, require

Pooling = Literal["max", "align"]
MaskTargets = Literal["hard", "soft"]
Pasting = Literal["grid", "whole_pixels"]


class RoiConfig(Section):
    """RoI pooling, conv5 on every RoI, and the two sibling layers (Fast R-CNN; appendix A)."""

    pooling: Pooling = Field("max", description="RoI max pooling (the paper) or RoIAlign")
    pool_size: Whole = Field(14, ge=1, le=100, description="cells per side before conv5, which halves it")
    sampling_ratio: Whole = Field(
        0, ge=0, le=100, description="RoIAlign's samples per side of a cell; 0: one per feature cell covered"
    )
    aligned: Flag = Field(
        True,
        description="RoIAlign takes a pixel's middle for its place; false, as torchvision's detectors: its corner, and a "
        "region is at least one feature wide and high",
    )
    unused_outputs: Whole = Field(
        0,
        ge=0,
        le=10_000,
        description="outputs of the classifier after the background's that count in the softmax and are never predicted: "
        "torchvision's have 10, for categories that COCO does not use",
    )
    sample_size: Boxes = Field(128, description="RoIs per image that enter the loss")
    positive_fraction: Fraction = Field(0.25, description="greatest share of foreground in the sample")
    positive_iou: Fraction = Field(0.5, description="a proposal with at least this IoU is foreground")
    negative_iou: tuple[Fraction, Fraction] = Field((0.1, 0.5), description="background: IoU in [low, high)")
    delta_std: tuple[Std, Std, Std, Std] = Field((0.1, 0.1, 0.2, 0.2), description="box targets are divided by it")
    smooth_l1_beta: Beta = Field(1.0, description="0 is plain L1")
    context: Flag = Field(
        False,
        description="global context: the whole image is one more RoI, whose features join each RoI's (appendix B)",
    )
    ignore_coverage: Fraction = Field(
        0.5, description="a proposal with this share of its area in a crowd or difficult region is never background"
    )
    refined_iou: Fraction = Field(
        0,
        description="the head learns from the boxes that it makes of the sample, too, each foreground from this IoU on and "
        "else background; 0: from proposals alone",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> RoiConfig:
        low, high = self.negative_iou
        require(
            low <= high,
            f"roi.negative_iou is [{low}, {high}], which ends below its beginning: write the smaller number first",
        )
        require(
            high <= self.positive_iou,
            f"roi.negative_iou ends at {high}, above roi.positive_iou, which is {self.positive_iou}: a proposal between them "
            "would be both; lower the one, or raise the other",
        )
        require(
            self.refined_iou == 0 or self.refined_iou >= self.positive_iou,
            f"roi.refined_iou is {self.refined_iou}, below roi.positive_iou, which is {self.positive_iou}: refined boxes are "
            "better than proposals; raise it, or write 0 to learn from proposals alone",
        )
        return self


class MaskConfig(Section):
    """The mask of each object, where `model.mask` is true (Mask R-CNN, He et al. 2017)."""

    channels: Whole = Field(256, ge=1, le=8192, description="of the deconvolution before the masks")
    pool_size: Whole = Field(
        14,
        ge=1,
        le=100,
        description="cells per side of a region, with a pyramid; C4 pools with roi.pool_size, and conv5 halves",
    )
    convs: Whole = Field(4, ge=0, le=32, description="3x3 convolutions before the deconvolution, with a pyramid; C4 has conv5")
    targets: MaskTargets = Field(
        "hard",
        description="what a cell learns; hard: whether half of it is the object's, as in detectron2; soft: the share itself",
    )
    pasting: Pasting = Field(
        "grid",
        description="how a mask gets into the image; grid: sampled at the pixels' centres, as in detectron2; whole_pixels: "
        "resized to a box of whole pixels, as in torchvision",
    )
