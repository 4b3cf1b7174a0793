"""The whole configuration schema. Every constant of the paper is a key here; defaults are the paper's recipe.

A YAML file and dotted overrides become one frozen `Config`. Sizes are pixels of the network's input image; IoUs and
scores are in [0, 1]. Reading files into it is the work of `detection.config.files`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from backbones.errors import shorten
from backbones.options import C4_STRIDE, FPN_STRIDES, NUM_STAGES, Neck, NeckNorm, Norm, StemPool
from detection.config.data_section import DataConfig
from detection.config.limits import (
    MAX_NUMBER,
    MAX_SIDE,
    AnchorSize,
    BelowOne,
    Beta,
    Boxes,
    ByClass,
    FilePath,
    Flag,
    Fraction,
    ImagesPerDevice,
    Ratio,
    Real,
    Seconds,
    Section,
    Side,
    Std,
    Steps,
    StepsOrNone,
    Text,
    TileOverlap,
    TileSide,
    Whole,
    ascending,
    require,
    require_shorter,
    require_tile,
)
from detection.config.thresholds import DEFAULT_THRESHOLD, check_threshold_names
from detection.errors import ConfigError

MAX_CELL_ANCHORS = 1000
Pooling = Literal["max", "align"]
MaskTargets = Literal["hard", "soft"]
Pasting = Literal["grid", "whole_pixels"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class ModelConfig(Section):
    """The backbone and how it is fine-tuned."""

    backbone: Text = Field(
        "resnet101",
        description='a name of `list_backbones()`, or of another library: "timm/resnet50d", "torchvision/resnext50_32x4d"',
    )
    stride_in_1x1: Flag = Field(
        False, description="the stride is in the bottleneck's first 1x1 (the authors' models), not in its 3x3"
    )
    stem_pool: StemPool = Field(
        "pad1",
        description="a ResNet's first max-pool; pad1: as in torchvision; ceil: the authors', whose last window may overhang",
    )
    neck: Neck = Field("none", description="none: the paper's C4 detector; fpn: a feature pyramid, as `fpn` describes it")
    norm: Norm = Field("frozen_bn", description="frozen_bn: BN is a constant scale and offset (appendix A)")
    freeze_stages: Whole = Field(
        2, ge=0, le=NUM_STAGES, description="number of stages that are not trained: 1 = conv1, 2 = conv1 and conv2_x, ..."
    )
    mask: Flag = Field(False, description="predict the mask of each object too, as `mask` describes it")
    weights: FilePath | None = Field(
        None,
        description="what to start from: the checkpoint of a classifier or a detector, or a name such as torchvision/resnet101",
    )


class FpnConfig(Section):
    """The feature pyramid and the head on its regions, where `model.neck` is fpn (Lin et al. 2017)."""

    channels: Whole = Field(256, ge=1, le=8192, description="of each of the maps P2 to P6, and of the heads' convolutions")
    norm: NeckNorm = Field("none", description="of the convolutions of the pyramid and of the heads on it")
    head_convs: Whole = Field(0, ge=0, le=32, description="3x3 convolutions before the box head's fully connected layers")
    head_fcs: Whole = Field(2, ge=1, le=2, description="fully connected layers of the box head; as torchvision's _v2: 1")
    head_channels: Whole = Field(1024, ge=1, le=65536, description="width of these layers")


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
        require(
            self.negative_iou <= self.positive_iou,
            f"rpn.negative_iou is {self.negative_iou}, above rpn.positive_iou, which is {self.positive_iou}: an anchor between "
            "them would be both; lower it",
        )
        anchors = len(self.anchor_sizes) * len(self.anchor_ratios)
        require(
            anchors <= MAX_CELL_ANCHORS,
            f"rpn.anchor_sizes and rpn.anchor_ratios make {anchors} anchors per cell, more than {MAX_CELL_ANCHORS}: list fewer",
        )
        for name, values in (("sizes", self.anchor_sizes), ("ratios", self.anchor_ratios)):
            require(len(set(values)) == len(values), f"rpn.anchor_{name} lists a value twice, {shorten(values)}: leave one out")
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
        require_shorter("test.shorter_side", self.shorter_side, "test.longer_side", self.longer_side)
        return self

    def __hash__(self) -> int:
        # A mapping has no hash; settings that differ in it alone may share theirs.
        return hash(tuple(value for name, value in self if name != "score_threshold"))


class TrainConfig(Section):
    """The solver of the classification and the detection stage. Learning rate and steps are meant for `batch_size`."""

    batch_size: Whole = Field(
        8,
        ge=1,
        le=1_000_000,
        description="images per step that learning_rate and steps are meant for; another number scales both linearly",
    )
    images_per_device: ImagesPerDevice | Literal["auto"] = Field(
        1, description="images per process and forward pass; auto: as many as a GPU's memory takes, on a CPU 1"
    )
    accumulate: Whole = Field(1, ge=1, le=100_000, description="forward passes per step")
    steps: Steps = Field(90000, description="optimizer steps")
    learning_rate: Real = Field(0.001, gt=0, le=1000, description="before the first drop")
    schedule: Literal["step", "cosine", "plateau"] = Field(
        "step", description="step: lower from each of lr_drops on; cosine: to zero at the end; plateau: see plateau_patience"
    )
    lr_drops: tuple[Steps, ...] = Field(
        (), max_length=1000, description="steps at which the rate is multiplied by lr_drop_factor, ascending"
    )
    lr_drop_factor: Real = Field(0.1, gt=0, le=1, description="what the learning rate is multiplied by at each drop")
    plateau_patience: Whole = Field(
        1,
        ge=1,
        le=1_000_000,
        description="evaluations without a better metric until a plateau schedule multiplies the rate by lr_drop_factor",
    )
    warmup_steps: StepsOrNone = Field(0, description="steps of linear warm-up")
    warmup_factor: Fraction = Field(0.1, description="the warm-up starts at this share of the rate")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd: with momentum; adamw: its own rates, such as 0.0001, and weight decay, such as 0.05"
    )
    momentum: BelowOne = Field(0.9, description="of SGD")
    backbone_rate: Real = Field(
        1.0, gt=0, le=1000, description="the backbone learns at this factor of the learning rate, the layers on it at the rate"
    )
    layer_decay: Real = Field(
        1.0,
        gt=0,
        le=1,
        description="each stage of the backbone learns at this factor of the rate of what follows it, down to conv1",
    )
    weight_decay: Real = Field(1e-4, ge=0, le=100, description="of all weights but those of norms and biases")
    ema_decay: BelowOne = Field(
        0.0, description="of the exponential moving average of the weights, which is what is evaluated; 0: none"
    )
    clip_norm: Real | None = Field(
        None, gt=0, le=1_000_000_000, description="the gradient is scaled down to this norm where it is larger"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bf16 autocast where the hardware computes in bf16, else fp16 on GPUs that have it, else fp32; fp16 "
        "scales the losses",
    )
    seed: Whole = Field(0, ge=0, le=MAX_NUMBER, description="of initialisation, order, augmentation and sampling")
    log_every: Steps = Field(20, description="steps between log lines")
    checkpoint_every: Steps = Field(1000, description="steps between checkpoints")
    eval_every: StepsOrNone = Field(0, description="steps between evaluations; 0: only at the end")
    stop_patience: Whole = Field(
        0, ge=0, le=1_000_000, description="evaluations without a better metric until the run ends; 0: it ends after its steps"
    )
    validation_losses: Whole = Field(
        0,
        ge=0,
        le=1_000_000,
        description="validation images whose losses each evaluation measures too, beside the training's; 0: none",
    )
    connect_timeout: Seconds = Field(
        60.0, description="seconds that the processes of a distributed run wait for each other at the start"
    )
    collective_timeout: Seconds = Field(
        86400.0, description="seconds that they wait for each other later, such as for an evaluation, which one of them does"
    )

    @property
    def micro_batch(self) -> int:
        """`images_per_device` as a number. Raises ConfigError where it is still to be found out."""
        if isinstance(self.images_per_device, str):
            raise ConfigError(
                "train.images_per_device is 'auto', which only the training of a detector finds out: give a number"
            )
        return self.images_per_device

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        ordered = sorted(set(self.lr_drops))
        require(
            ascending(self.lr_drops),
            f"train.lr_drops must ascend, got {shorten(list(self.lr_drops))}: write {shorten(ordered)}",
        )
        require(
            self.schedule != "plateau" or self.eval_every > 0,
            "train.schedule 'plateau' follows the evaluations: set train.eval_every",
        )
        require(
            self.stop_patience == 0 or self.eval_every > 0,
            f"train.stop_patience {self.stop_patience} counts evaluations: set train.eval_every",
        )
        return self


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
