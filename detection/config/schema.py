"""The whole configuration schema. Every constant of the paper is a key here; defaults are the paper's recipe.

A YAML file and dotted overrides become one frozen `Config`. Sizes are pixels of the network's input image; IoUs and
scores are in [0, 1]. Reading files into it is the work of `detection.config.files`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from backbones.options import Norm, StemPool
from detection.config.class_lists import resolve_classes

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, le=31536000)]  # up to a year
Timeout = Annotated[float, Field(ge=0, le=31536000)]  # seconds; 0: none
PositiveInt = Annotated[int, Field(ge=1)]
MaxPixels = Annotated[int, Field(ge=1, le=2**30)]  # OpenCV decodes no larger images
Resizing = Literal["opencv", "pillow"]
OnBadImage = Literal["error", "skip"]
Pooling = Literal["max", "align"]
Precision = Literal["auto", "fp32", "bf16"]

LOADER_TIMEOUT = 300.0
"""Seconds: the default of `data.loader_timeout`."""

MAX_PIXELS = 120_000_000
"""Of an image file, by default: few cameras give more. Decoded it takes 360 MB."""


class Section(BaseModel):
    """A section of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Section):
    """The backbone and how it is fine-tuned."""

    backbone: str = Field(
        "resnet101",
        description='a name of `list_backbones()`, or of another library: "timm/resnet50d", "torchvision/resnext50_32x4d"',
    )
    stride_in_1x1: bool = Field(
        False, description="the stride is in the bottleneck's first 1x1 (the authors' models), not in its 3x3"
    )
    stem_pool: StemPool = Field(
        "pad1",
        description="a ResNet's first max-pool; pad1: as in torchvision; ceil: the authors', whose last window may overhang",
    )
    norm: Norm = Field("frozen_bn", description="frozen_bn: BN is a constant scale and offset (appendix A)")
    freeze_stages: Annotated[int, Field(ge=0, le=5)] = Field(
        2, description="number of stages that are not trained: 1 = conv1, 2 = conv1 and conv2_x, ..."
    )
    weights: Path | None = Field(
        None,
        description="what to start from: the checkpoint of a classifier or a detector, or a name such as torchvision/resnet101",
    )


class RpnConfig(Section):
    """Region Proposal Network (Faster R-CNN, section 3.1)."""

    channels: PositiveInt = Field(512, description="width of the 3x3 convolution")
    anchor_sizes: tuple[Positive, ...] = Field((128, 256, 512), min_length=1, description="square roots of the anchors' areas")
    anchor_ratios: tuple[Positive, ...] = Field((0.5, 1.0, 2.0), min_length=1, description="height / width")
    anchor_offset: Fraction = Field(
        0.0,
        description="in cells: cell (y, x) is centred on pixel 16 (y + offset), 16 (x + offset); as py-faster-rcnn: 0.5",
    )
    positive_iou: Fraction = Field(
        0.7, description="an anchor with at least this IoU is positive, and so is each box's best anchor"
    )
    negative_iou: Fraction = Field(0.3, description="an anchor with a lower IoU with every box is negative")
    sample_size: PositiveInt = Field(256, description="anchors per image that enter the loss")
    positive_fraction: Fraction = Field(0.5, description="greatest share of positives in the sample")
    average_over: Literal["sampled", "sample_size"] = Field(
        "sampled",
        description="both losses are divided by the number of anchors sampled, or by sample_size per image as in detectron2",
    )
    ignore_straddling: bool = Field(True, description="leave anchors that cross the image out of the loss")
    anchors_on_padding: bool = Field(
        False, description="anchors centred on a batch's padding are sampled and proposed too, as in detectron2"
    )
    smooth_l1_beta: Annotated[float, Field(ge=0)] = Field(1 / 9, description="1 / sigma^2 with sigma = 3; 0 is plain L1")
    nms_threshold: Fraction = Field(0.7, description="IoU threshold of the proposals' NMS")
    pre_nms_train: PositiveInt = Field(12000, description="best anchors kept before NMS, training")
    post_nms_train: PositiveInt = Field(2000, description="proposals per image, training")
    pre_nms_test: PositiveInt = Field(6000, description="best anchors kept before NMS, test")
    post_nms_test: PositiveInt = Field(300, description="proposals per image, test")
    min_size: Annotated[float, Field(ge=0)] = Field(16, description="least width and height of a proposal")
    ignore_coverage: Fraction = Field(
        0.5, description="an anchor with this share of its area in a crowd or difficult region is never a negative"
    )


class RoiConfig(Section):
    """RoI pooling, conv5 on every RoI, and the two sibling layers (Fast R-CNN; appendix A)."""

    pooling: Pooling = Field("max", description="RoI max pooling (the paper) or RoIAlign")
    pool_size: PositiveInt = Field(14, description="cells per side before conv5, which halves it")
    sampling_ratio: Count = Field(0, description="RoIAlign's samples per side of a cell; 0: one per feature cell covered")
    sample_size: PositiveInt = Field(128, description="RoIs per image that enter the loss")
    positive_fraction: Fraction = Field(0.25, description="greatest share of foreground in the sample")
    positive_iou: Fraction = Field(0.5, description="a proposal with at least this IoU is foreground")
    negative_iou: tuple[Fraction, Fraction] = Field((0.1, 0.5), description="background: IoU in [low, high)")
    delta_std: tuple[Positive, Positive, Positive, Positive] = Field(
        (0.1, 0.1, 0.2, 0.2), description="box targets are divided by it"
    )
    smooth_l1_beta: Annotated[float, Field(ge=0)] = Field(1.0, description="0 is plain L1")
    context: bool = Field(
        False,
        description="global context: the whole image is one more RoI, whose features join each RoI's (appendix B)",
    )
    ignore_coverage: Fraction = Field(
        0.5, description="a proposal with this share of its area in a crowd or difficult region is never background"
    )


class TestConfig(Section):
    """Inference. The defaults are the baseline; appendix B's improvements are switched on one by one."""

    shorter_side: PositiveInt = Field(600, description="images are resized so that their shorter side has this length ...")
    longer_side: PositiveInt = Field(1000, description="... or less, where their longer side would exceed this")
    score_threshold: Fraction = Field(0.05, description="detections with a lower score are dropped")
    nms_threshold: Fraction = Field(0.3, description="IoU threshold of the NMS in each class")
    max_detections: PositiveInt = Field(100, description="detections per image, at most")
    batch_size: PositiveInt = Field(1, description="images of equal size per forward pass, at most")
    refinement_passes: Count = Field(0, description="how often regressed boxes are pooled and classified again; the paper: 1")
    voting: bool = Field(False, description="a kept box becomes the score-weighted mean of its class's boxes around it")
    voting_iou: Fraction = Field(0.5, description="boxes with at least this IoU with a kept box vote for it")
    voting_candidates: Literal["all", "above_threshold"] = Field(
        "all", description="which boxes vote: all those before NMS, or only those above score_threshold"
    )
    scales: tuple[PositiveInt, ...] = Field(
        (), description="shorter sides of the image pyramid, ascending; empty: shorter_side alone. The paper: 200 ... 1000"
    )
    scale_area: Positive = Field(
        224, description="a RoI is pooled at the scale where its area is closest to this squared, and at a neighbour of it"
    )
    scale_merge: Literal["pool", "conv5"] = Field(
        "pool", description="the maximum of the two scales is taken after RoI pooling or after conv5"
    )
    flip: bool = Field(False, description="average the scores and boxes with those of the mirrored image")

    @model_validator(mode="after")
    def _ascending_scales(self) -> TestConfig:
        if list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"test.scales must ascend, got {list(self.scales)}: write {sorted(set(self.scales))}")
        return self


class VocSource(Section):
    """A split of a Pascal VOC devkit, or of any folder with Annotations, ImageSets and JPEGImages."""

    format: Literal["voc"]
    root: Path = Field(Path("VOCdevkit"), description="holds VOC<year>/, or Annotations/ itself where `year` is not given")
    year: str | None = Field(None, coerce_numbers_to_str=True, description="2007, 2012, ...")
    split: str = Field(description="a file of ImageSets/Main, without .txt")
    annotated: bool = Field(True, description="false: a split without published annotations, for detection only")


class CocoSource(Section):
    """A COCO JSON file and its images."""

    format: Literal["coco"]
    root: Path = Field(Path("coco"), description="`annotations` and `images` are relative to it")
    annotations: Path = Field(description="e.g. annotations/instances_train2017.json")
    images: Path = Field(description="folder of the images, e.g. train2017")


Source = Annotated[VocSource | CocoSource, Field(discriminator="format")]
Augmentation = dict[str, dict[str, Any]]


class DataConfig(Section):
    """Datasets and what is done to their images. Sources of a split are joined."""

    classes: Literal["voc", "coco"] | tuple[str, ...] = Field("voc", description="class names, in the order of the labels")
    train: tuple[Source, ...] = Field((), description="e.g. - {format: voc, year: 2007, split: trainval}")
    val: tuple[Source, ...] = Field((), description="evaluated while training")
    test: tuple[Source, ...] = Field((), description="evaluated by the eval tools; `val` where it is empty")
    strict: bool = Field(False, description="refuse faulty boxes and tags instead of clipping or dropping them with a count")
    on_bad_image: OnBadImage = Field("error", description="what to do about an image that cannot be decoded")
    max_pixels: MaxPixels = Field(MAX_PIXELS, description="an image file with more is refused: three bytes of memory for each")
    shorter_sides: tuple[PositiveInt, ...] = Field((600,), min_length=1, description="training: one is drawn per image")
    longer_side: PositiveInt = Field(1000, description="training: greatest length of the longer side")
    resizing: Resizing = Field(
        "opencv",
        description="bilinear, in training and test: OpenCV's, or Pillow's (detectron2's), which averages when it shrinks",
    )
    augmentations: tuple[Augmentation, ...] = Field(
        ({"HorizontalFlip": {"p": 0.5}},), description="albumentations by class name, applied before the resize"
    )
    aspect_grouping: bool = Field(True, description="batch landscape with landscape, portrait with portrait")
    workers: Count = Field(2, description="loader processes per training process")
    loader_timeout: Timeout = Field(
        LOADER_TIMEOUT, description="longest wait, in seconds, for what the workers load, before it is an error; 0: no limit"
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return resolve_classes(self.classes)

    @model_validator(mode="after")
    def _unique_classes(self) -> DataConfig:
        resolve_classes(self.classes)
        if isinstance(self.classes, tuple) and (not self.classes or len(set(self.classes)) != len(self.classes)):
            raise ValueError(f"data.classes must be a list of different names, got {list(self.classes)}")
        return self


class TrainConfig(Section):
    """The solver of the classification and the detection stage. Learning rate and steps are meant for `batch_size`."""

    batch_size: PositiveInt = Field(
        8, description="images per step that learning_rate and steps are meant for; another number scales both linearly"
    )
    images_per_device: PositiveInt = Field(1, description="images per process and forward pass")
    accumulate: PositiveInt = Field(1, description="forward passes per step")
    steps: PositiveInt = Field(90000, description="optimizer steps")
    learning_rate: Positive = Field(0.001, description="before the first drop")
    schedule: Literal["step", "cosine", "plateau"] = Field(
        "step", description="step: lower from each of lr_drops on; cosine: to zero at the end; plateau: see plateau_patience"
    )
    lr_drops: tuple[PositiveInt, ...] = Field((), description="steps at which the rate is multiplied by lr_drop_factor")
    lr_drop_factor: Positive = Field(0.1, description="what the learning rate is multiplied by at each drop")
    plateau_patience: PositiveInt = Field(
        1, description="evaluations without a better metric until a plateau schedule multiplies the rate by lr_drop_factor"
    )
    warmup_steps: Count = Field(0, description="steps of linear warm-up")
    warmup_factor: Fraction = Field(0.1, description="the warm-up starts at this share of the rate")
    momentum: Fraction = Field(0.9, description="of SGD")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="of all weights but those of norms and biases")
    ema_decay: Fraction = Field(
        0.0, description="of the exponential moving average of the weights, which is what is evaluated; 0: none"
    )
    clip_norm: Positive | None = Field(None, description="the gradient is scaled down to this norm where it is larger")
    precision: Precision = Field("auto", description="auto: bf16 autocast where the hardware computes in bf16")
    seed: int = Field(0, description="of initialisation, order, augmentation and sampling")
    log_every: PositiveInt = Field(20, description="steps between log lines")
    checkpoint_every: PositiveInt = Field(1000, description="steps between checkpoints")
    eval_every: Count = Field(0, description="steps between evaluations; 0: only at the end")
    connect_timeout: Seconds = Field(
        60.0, description="seconds that the processes of a distributed run wait for each other at the start"
    )
    collective_timeout: Seconds = Field(
        86400.0, description="seconds that they wait for each other later, such as for an evaluation, which one of them does"
    )

    @model_validator(mode="after")
    def _check_plateau(self) -> TrainConfig:
        if self.schedule == "plateau" and self.eval_every == 0:
            raise ValueError("train.schedule 'plateau' follows the evaluations: set train.eval_every")
        return self


class Config(Section):
    """A detection experiment."""

    approach: Literal["joint", "alternating"] = Field(
        "joint", description="RPN and Fast R-CNN together, or in the paper's four alternating steps, each of train.steps"
    )
    model: ModelConfig = ModelConfig()
    rpn: RpnConfig = RpnConfig()
    roi: RoiConfig = RoiConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    test: TestConfig = TestConfig()
    output_dir: Path = Field(Path("runs/default"), description="checkpoints, logs and the resolved config go here")


class ClassifierDataConfig(Section):
    """Class folders: ROOT/SPLIT/CLASS/IMAGE."""

    root: Path = Field(Path("imagenet"), description="holds the splits' folders, or is a .tar, .tar.gz or .tar.xz of them")
    train: str = Field("train", description="folder of the training split; '.': the classes lie in root itself")
    val: str = Field("val", description="folder of the validation split")
    val_labels: Path | None = Field(
        None, description="a text file with the class of each image, for a validation folder without class folders"
    )
    class_order: Path | None = Field(
        None, description="what numbers in val_labels mean: a list of the class folders' names, or the devkit's meta.mat"
    )
    hold_out: Count = Field(0, description="training images that are kept back and validated on instead, drawn by train.seed")
    mean_image: bool = Field(False, description="subtract the training split's mean image, not just the mean of each channel")
    image_size: PositiveInt = Field(224, description="side of the network's square input")
    augmentations: tuple[Augmentation, ...] = Field(
        ({"RandomResizedCrop": {}}, {"HorizontalFlip": {"p": 0.5}}),
        description="albumentations by class name; `size`, `height` and `width` default to image_size",
    )
    test_transforms: tuple[Augmentation, ...] = Field(
        (), description="the same for validation; empty: shorter side to 256/224 of image_size, then the centre"
    )
    on_bad_image: OnBadImage = Field("error", description="what to do about an image that cannot be decoded")
    max_pixels: MaxPixels = Field(MAX_PIXELS, description="an image file with more is refused: three bytes of memory for each")
    workers: Count = Field(2, description="loader processes per training process")
    loader_timeout: Timeout = Field(
        LOADER_TIMEOUT, description="longest wait, in seconds, for what the workers load, before it is an error; 0: no limit"
    )


class ClassifierModelConfig(Section):
    """The network to be trained as a classifier."""

    backbone: str = Field("resnet50", description="as in the detector's `model`")
    stride_in_1x1: bool = Field(False, description="as in the detector's `model`")
    stem_pool: StemPool = Field("pad1", description="as in the detector's `model`")
    weights: Path | None = Field(
        None, description="what to start from, as in the detector's `model`; without the last layer where its classes differ"
    )


class ClassifierTrainConfig(TrainConfig):
    """The same solver with the paper's defaults for ImageNet (section 3.4)."""

    batch_size: PositiveInt = Field(
        256, description="images per step that learning_rate and steps are meant for; another number scales both linearly"
    )
    images_per_device: PositiveInt = Field(32, description="images per process and forward pass")
    steps: PositiveInt = Field(600000, description="optimizer steps")
    learning_rate: Positive = Field(0.1, description="before the first drop")
    warmup_until_error: Fraction | None = Field(
        None, description="warmup_factor of the rate until the training error of a log interval is below this"
    )
    label_smoothing: Fraction = Field(0.0, description="share of the target that is spread over all classes")


class ClassifierTestConfig(Section):
    """The views of each image whose class probabilities are averaged (sections 3.4, 4.1)."""

    views: Literal["center", "ten_crop", "full"] = Field(
        "center",
        description="center: data.test_transforms; ten_crop: corners, centre and flips at 256/224 of image_size; "
        "full: the whole image at each of `scales`, the network applied fully convolutionally",
    )
    scales: tuple[PositiveInt, ...] = Field((), description="shorter sides of `full`; empty: data.image_size alone")
    flip: bool = Field(False, description="`full`: the mirrored image too")


class ClassifierConfig(Section):
    """A classification (pre-training) experiment."""

    model: ClassifierModelConfig = ClassifierModelConfig()
    data: ClassifierDataConfig = ClassifierDataConfig()
    train: ClassifierTrainConfig = ClassifierTrainConfig()
    test: ClassifierTestConfig = ClassifierTestConfig()
    bn_images: Count = Field(
        8192, description="training images for the strict average of BN statistics after training; 0: keep the moving one"
    )
    output_dir: Path = Field(Path("runs/pretrain"), description="checkpoints, logs and the resolved config go here")
