"""How a detection experiment is tested: sizes of the images, thresholds, improvements of appendix B."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from backbones.errors import shorten
from detection.config.limits import (
    MAX_SIDE,
    Boxes,
    ByClass,
    Flag,
    Fraction,
    Real,
    Section,
    Side,
    TileOverlap,
    TileSide,
    Whole,
    ascending,
    require,
    require_shorter,
    require_tile,
)
from detection.config.thresholds import DEFAULT_THRESHOLD


class TestConfig(Section):
    """Inference. The defaults are the baseline; appendix B's improvements are switched on one by one."""

    shorter_side: Side = Field(600, description="images are resized so that their shorter side has this length ...")
    longer_side: Side = Field(1000, description="... or less, where their longer side would exceed this")
    score_threshold: Fraction | ByClass = Field(
        DEFAULT_THRESHOLD,
        description="detections with a lower score are dropped; by class: {cat: 0.4, dog: 0.62}, where classes left out keep "
        "the default",
    )
    nms_threshold: Fraction = Field(0.3, description="IoU threshold of the NMS in each class")
    max_detections: Boxes = Field(100, description="detections per image, at most")
    min_size: Real = Field(
        0,
        ge=0,
        le=MAX_SIDE,
        description="less wide or high detections are dropped before NMS, as in torchvision; 0: those without area, after it",
    )
    batch_size: Whole = Field(1, ge=1, le=10_000, description="images of equal size per forward pass, at most")
    refinement_passes: Whole = Field(
        0, ge=0, le=100, description="how often regressed boxes are pooled and classified again; the paper: 1"
    )
    refinement: Literal["unite", "average"] = Field(
        "unite",
        description="what the passes give; unite: the predictions of each, side by side, as in the paper; average: one "
        "prediction of a region, its scores and boxes the means of the passes",
    )
    refine_scores: tuple[Fraction, Fraction] = Field(
        (0, 1),
        description="only a region whose best score in the pass before is in [low, high] is refined; [0, 1]: each one",
    )
    voting: Flag = Field(False, description="a kept box becomes the score-weighted mean of its class's boxes around it")
    voting_iou: Fraction = Field(0.5, description="boxes with at least this IoU with a kept box vote for it")
    voting_candidates: Literal["all", "above_threshold"] = Field(
        "all", description="which boxes vote: all those before NMS, or only those above score_threshold"
    )
    scales: tuple[Side, ...] = Field(
        (),
        max_length=100,
        description="shorter sides of the image pyramid, ascending; empty: shorter_side alone. The paper: 200 ... 1000",
    )
    scale_area: Real = Field(
        224,
        ge=1,
        le=MAX_SIDE,
        description="a RoI is pooled at the scale where its area is closest to this squared, and at a neighbour of it",
    )
    scale_merge: Literal["pool", "conv5"] = Field(
        "pool", description="the maximum of the two scales is taken after RoI pooling or after conv5"
    )
    flip: Flag = Field(False, description="average the scores and boxes with those of the mirrored image")
    tile: TileSide = Field(
        0, description="larger images are looked at in tiles with sides of so many of their own pixels, too; 0: only whole"
    )
    tile_overlap: TileOverlap = Field(0.2, description="what neighbouring tiles share, at least, as a share of tile")
    tile_whole: Flag = Field(True, description="an image that is looked at in tiles is looked at as a whole, too")

    @model_validator(mode="after")
    def _fits_together(self) -> TestConfig:
        require_tile("test.tile", self.tile)
        ordered = sorted(set(self.scales))
        require(ascending(self.scales), f"test.scales must ascend, got {shorten(list(self.scales))}: write {shorten(ordered)}")
        low, high = self.refine_scores
        require(
            low <= high,
            f"test.refine_scores is [{low}, {high}], which ends below its beginning: write the smaller number first",
        )
        require_shorter("test.shorter_side", self.shorter_side, "test.longer_side", self.longer_side)
        return self

    def __hash__(self) -> int:
        # A mapping has no hash; settings that differ in it alone may share theirs.
        return hash(tuple(value for name, value in self if name != "score_threshold"))
