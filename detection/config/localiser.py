"""The schema of an ImageNet localisation (CLS-LOC) experiment: the paper's appendix C.

A classifier says what is in an image; a per-class RPN says where, and an R-CNN on its proposals says it better. What the paper
does not state (anchors, thresholds, the other classes' outputs, scales, padding) is an option here, described as ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from backbones.options import NUM_STAGES, Norm, StemPool
from detection.config.data_section import Augmentation, OnBadImage
from detection.config.limits import (
    LOADER_TIMEOUT,
    MAX_PIXELS,
    AnchorSize,
    BatchSize,
    Beta,
    Boxes,
    FilePath,
    Flag,
    Fraction,
    ImagesPerDevice,
    LearningRate,
    LoaderTimeout,
    MaxPixels,
    Ratio,
    Section,
    Side,
    Std,
    Steps,
    Text,
    Whole,
    Workers,
    require,
    require_different,
    require_ious,
)
from detection.config.rpn_section import require_anchors
from detection.config.train_section import TrainConfig

OtherClasses = Literal["ignored", "negative", "common"]
LocViews = Literal["center", "dense"]
LocMerging = Literal["none", "voting"]


class LocSplit(Section):
    """Images of CLS-LOC: a list of them, and the folder where they lie."""

    list: Text = Field(description="a file of ImageSets/CLS-LOC, without .txt: an image's id per line")
    folder: Text = Field(description="of Data/CLS-LOC and Annotations/CLS-LOC: train or val")


class LocModelConfig(Section):
    """The classification network that both stages end in two sibling layers."""

    backbone: Text = Field("resnet101", description="as in the detector's `model`, with feature maps up to c5")
    stride_in_1x1: Flag = Field(False, description="as in the detector's `model`")
    stem_pool: StemPool = Field("pad1", description="as in the detector's `model`")
    norm: Norm = Field("frozen_bn", description="as in the detector's `model`")
    freeze_stages: Whole = Field(0, ge=0, le=NUM_STAGES, description="number of stages that are not trained, from conv1 on")
    weights: FilePath | None = Field(None, description="the classifier that both stages start from, or a name of the zoo")


class LocDataConfig(Section):
    """CLS-LOC in the layout of 2015: Data/CLS-LOC, Annotations/CLS-LOC and ImageSets/CLS-LOC, and its development kit."""

    root: FilePath = Field(Path("ILSVRC"), description="holds Data, Annotations and ImageSets")
    devkit: FilePath = Field(
        Path("devkit"), description="the development kit, relative to `root`: its data/ has map_clsloc.txt and the blacklist"
    )
    train: LocSplit = LocSplit(list="train_loc", folder="train")
    val: LocSplit = LocSplit(list="val", folder="val")
    image_size: Side = Field(224, description="side of the network's square input, in training and in the centre view")
    augmentations: tuple[Augmentation, ...] = Field(
        ({"RandomResizedCrop": {"scale": [0.3, 1.0]}}, {"HorizontalFlip": {"p": 0.5}}),
        max_length=100,
        description="the RPN's training: albumentations by class name; `size`, `height` and `width` default to image_size",
    )
    on_bad_image: OnBadImage = "error"
    max_pixels: MaxPixels = MAX_PIXELS
    workers: Workers = 2
    loader_timeout: LoaderTimeout = LOADER_TIMEOUT


class LocRpnConfig(Section):
    """The per-class RPN: two sibling 1x1 convolutions on conv5, K logistic outputs and K boxes for each anchor."""

    anchor_sizes: tuple[AnchorSize, ...] = Field(
        (64, 128, 224), min_length=1, max_length=100, description="square roots of the anchors' areas; ours"
    )
    anchor_ratios: tuple[Ratio, ...] = Field((0.5, 1.0, 2.0), min_length=1, max_length=100, description="height / width; ours")
    positive_iou: Fraction = Field(
        0.6, description="an anchor with at least this IoU with an object is positive, and so is each object's best; ours"
    )
    negative_iou: Fraction = Field(0.3, description="an anchor with a lower IoU with every object is negative; ours")
    sample_size: Boxes = Field(8, description="anchors per image that enter the loss")
    positive_fraction: Fraction = Field(0.5, description="greatest share of positives in the sample")
    other_classes: OtherClasses = Field(
        "ignored",
        description="what the outputs of classes that an image does not show learn from it: nothing (anchors are compared "
        "within a class only); negative: that its anchors are negative; common: what all classes have in common, by weights "
        "that are added to each class's own; ours",
    )
    smooth_l1_beta: Beta = Field(1 / 9, description="1 / sigma^2 with sigma = 3; 0 is plain L1")

    @model_validator(mode="after")
    def _fits_together(self) -> LocRpnConfig:
        require_ious("rpn", self.negative_iou, self.positive_iou, "an anchor")
        require_anchors(self.anchor_sizes, self.anchor_ratios)
        return self


class LocRcnnConfig(Section):
    """The RoI-centric R-CNN: the RPN's proposals of a class, warped to the network's input, scored and regressed anew."""

    num_proposals: Boxes = Field(200, description="of an image and class: its best boxes after NMS")
    nms_threshold: Fraction = Field(0.7, description="IoU threshold of the proposals' NMS; ours")
    positive_iou: Fraction = Field(0.5, description="a proposal with at least this IoU with an object is positive; ours")
    negative_iou: Fraction = Field(0.5, description="a proposal with a lower IoU with every object is negative; ours")
    positive_fraction: Fraction = Field(0.25, description="share of positives in a batch, where there are as many; R-CNN's")
    padding: Whole = Field(
        0, ge=0, le=1000, description="pixels of the warped image around the proposal, at each side; R-CNN's: 16"
    )
    other_classes: OtherClasses = Field("ignored", description="as in `rpn`")
    delta_std: tuple[Std, Std, Std, Std] = Field((0.1, 0.1, 0.2, 0.2), description="box targets are divided by it")
    smooth_l1_beta: Beta = Field(1.0, description="0 is plain L1")

    @model_validator(mode="after")
    def _fits_together(self) -> LocRcnnConfig:
        require_ious("rcnn", self.negative_iou, self.positive_iou, "a proposal")
        return self


class LocTrainConfig(TrainConfig):
    """The same solver, for either stage."""

    batch_size: BatchSize = Field(
        256,
        description="images or RoIs per step that learning_rate and steps are meant for; another number scales both linearly",
    )
    images_per_device: ImagesPerDevice = Field(32, description="images or RoIs per process and forward pass")
    steps: Steps = Field(60000, description="optimizer steps")
    learning_rate: LearningRate = 0.01


class LocRpnTrainConfig(LocTrainConfig):
    """The RPN's solver; a batch is 256 images, as in the paper. Rate and length are ours."""

    key: ClassVar[str] = "rpn_train"


class LocRcnnTrainConfig(LocTrainConfig):
    """The R-CNN's solver; a batch is 256 RoIs, as in the paper. Rate and length are ours."""

    key: ClassVar[str] = "rcnn_train"


class LocTestConfig(Section):
    """How the boxes of a class are looked for in an image."""

    views: LocViews = Field(
        "dense", description="center: one view, the centre of the image; dense: the whole image, fully convolutionally"
    )
    scales: tuple[Side, ...] = Field(
        (224, 256, 320, 384, 480), min_length=1, max_length=100, description="shorter sides of the dense views; ours"
    )
    longer_side: Side = Field(1000, description="of a dense view, at most")
    flip: Flag = Field(False, description="the mirrored views too")
    merging: LocMerging = Field(
        "none", description="none: the box with the best score; voting: the score-weighted mean of the boxes around it"
    )
    voting_iou: Fraction = Field(0.5, description="boxes with at least this IoU with the best one vote for it")
    batch_size: Whole = Field(32, ge=1, le=10_000, description="images of equal size, or RoIs, per forward pass, at most")

    @model_validator(mode="after")
    def _fits_together(self) -> LocTestConfig:
        require_different("test.scales", self.scales)
        return self


class LocClassifierConfig(Section):
    """The classifier, or several as one, whose best five classes are localised."""

    config: FilePath | None = Field(
        None, description="its experiment, whose `data.test_transforms` and `test` are its views; null: the centre view"
    )
    weights: tuple[FilePath, ...] = Field((), max_length=100, description="its checkpoints; none: model.weights")


class LocConfig(Section):
    """An ImageNet localisation experiment."""

    model: LocModelConfig = LocModelConfig()
    data: LocDataConfig = LocDataConfig()
    rpn: LocRpnConfig = LocRpnConfig()
    rpn_train: LocRpnTrainConfig = LocRpnTrainConfig()
    rcnn: LocRcnnConfig = LocRcnnConfig()
    rcnn_train: LocRcnnTrainConfig = LocRcnnTrainConfig()
    test: LocTestConfig = LocTestConfig()
    classifier: LocClassifierConfig = LocClassifierConfig()
    output_dir: FilePath = Field(Path("runs/loc"), description="holds the stages rpn/, proposals/, rcnn/, and results.json")

    @model_validator(mode="after")
    def _fits_together(self) -> LocConfig:
        size, padding = self.data.image_size, self.rcnn.padding
        require(
            2 * padding < size,
            f"rcnn.padding is {padding}, which at both sides leaves nothing of data.image_size, {size}: lower it",
        )
        return self
