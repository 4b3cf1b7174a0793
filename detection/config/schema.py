"""The whole configuration schema. Every constant of the paper is a key here; defaults are the paper's recipe.

A YAML file and dotted overrides become one frozen `Config`. Sizes are pixels of the network's input image; IoUs and
scores are in [0, 1]. Reading files into it is the work of `detection.config.files`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from backbones.errors import shorten
from backbones.options import C4_STRIDE, FPN_STRIDES
from detection.config.data_section import DataConfig
from detection.config.limits import FilePath, Section, ascending, require
from detection.config.model_section import FpnConfig, ModelConfig
from detection.config.roi_section import MaskConfig, RoiConfig
from detection.config.rpn_section import RpnConfig
from detection.config.test_section import TestConfig
from detection.config.thresholds import check_threshold_names
from detection.config.train_section import TrainConfig


class Config(Section):
    """A detection experiment."""

    approach: Literal["joint", "alternating"] = Field(
        "joint", description="RPN and Fast R-CNN together, or in the paper's four alternating steps, each of train.steps"
    )
    model: ModelConfig = ModelConfig()
    fpn: FpnConfig = FpnConfig()
    rpn: RpnConfig = RpnConfig()
    roi: RoiConfig = RoiConfig()
    mask: MaskConfig = MaskConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()
    output_dir: FilePath = Field(Path("runs/default"), description="checkpoints, logs and the resolved config go here")

    @property
    def anchor_sizes_by_stride(self) -> dict[int, tuple[float, ...]]:
        """The stride of each map that anchors lie on -> their sizes: all on C4's one map, one on each of a pyramid's."""
        sizes = self.rpn.anchor_sizes
        if self.model.neck == "none":
            return {C4_STRIDE: sizes}
        return {stride: (size,) for stride, size in zip(FPN_STRIDES, sizes, strict=True)}

    @property
    def anchors_per_cell(self) -> int:
        """The number A of anchors on each cell of a map."""
        return len(self.anchor_sizes_by_stride[C4_STRIDE]) * len(self.rpn.anchor_ratios)

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if (known := self.data.known_class_names) is not None:
            check_threshold_names(self.test.score_threshold, known)
        sizes = self.rpn.anchor_sizes
        require(
            self.model.neck == "none" or (len(sizes) == len(FPN_STRIDES) and ascending(sizes)),
            f"model.neck=fpn needs {len(FPN_STRIDES)} ascending rpn.anchor_sizes, one for each of P2 to P6, such as [32, 64, "
            f"128, 256, 512]; got {shorten(list(sizes))}",
        )
        return self
