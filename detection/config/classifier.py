"""The schema of a classification (pre-training) experiment: the detector's first stage (sections 3.4 and 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from backbones.options import StemPool
from detection.config.data_section import Augmentation, OnBadImage
from detection.config.limits import (
    LOADER_TIMEOUT,
    MAX_PIXELS,
    BatchSize,
    BelowOne,
    FilePath,
    Flag,
    Images,
    ImagesPerDevice,
    LearningRate,
    LoaderTimeout,
    MaxPixels,
    Real,
    Section,
    Side,
    Steps,
    Text,
    Workers,
    require_different,
)
from detection.config.train_section import TrainConfig


class ClassifierDataConfig(Section):
    """Class folders: ROOT/SPLIT/CLASS/IMAGE."""

    root: FilePath = Field(Path("imagenet"), description="holds the splits' folders, or is a .tar, .tar.gz or .tar.xz of them")
    train: Text = Field("train", description="folder of the training split; '.': the classes lie in root itself")
    val: Text = Field("val", description="folder of the validation split")
    val_labels: FilePath | None = Field(
        None, description="a text file with the class of each image, for a validation folder without class folders"
    )
    class_order: FilePath | None = Field(
        None, description="what numbers in val_labels mean: a list of the class folders' names, or the devkit's meta.mat"
    )
    hold_out: Images = Field(0, description="training images that are kept back and validated on instead, drawn by train.seed")
    mean_image: Flag = Field(False, description="subtract the training split's mean image, not just the mean of each channel")
    image_size: Side = Field(224, description="side of the network's square input")
    augmentations: tuple[Augmentation, ...] = Field(
        ({"RandomResizedCrop": {}}, {"HorizontalFlip": {"p": 0.5}}),
        max_length=100,
        description="albumentations by class name; `size`, `height` and `width` default to image_size",
    )
    test_transforms: tuple[Augmentation, ...] = Field(
        (), max_length=100, description="the same for validation; empty: shorter side to 256/224 of image_size, then the centre"
    )
    on_bad_image: OnBadImage = "error"
    max_pixels: MaxPixels = MAX_PIXELS
    workers: Workers = 2
    loader_timeout: LoaderTimeout = LOADER_TIMEOUT


class ClassifierModelConfig(Section):
    """The network to be trained as a classifier."""

    backbone: Text = Field("resnet50", description="as in the detector's `model`")
    stride_in_1x1: Flag = Field(False, description="as in the detector's `model`")
    stem_pool: StemPool = Field("pad1", description="as in the detector's `model`")
    weights: FilePath | None = Field(
        None, description="what to start from, as in the detector's `model`; without the last layer where its classes differ"
    )


class ClassifierTrainConfig(TrainConfig):
    """The same solver with the paper's defaults for ImageNet (section 3.4)."""

    batch_size: BatchSize = 256
    images_per_device: ImagesPerDevice = Field(32, description="images per process and forward pass")
    steps: Steps = Field(600000, description="optimizer steps")
    learning_rate: LearningRate = 0.1
    warmup_until_error: Real | None = Field(
        None, gt=0, le=1, description="warmup_factor of the rate until the training error of a log interval is below this"
    )
    label_smoothing: BelowOne = Field(0.0, description="share of the target that is spread over all classes")


class ClassifierTestConfig(Section):
    """The views of each image whose class probabilities are averaged (sections 3.4, 4.1)."""

    views: Literal["center", "ten_crop", "full"] = Field(
        "center",
        description="center: data.test_transforms; ten_crop: corners, centre and flips at 256/224 of image_size; "
        "full: the whole image at each of `scales`, the network applied fully convolutionally",
    )
    scales: tuple[Side, ...] = Field((), max_length=100, description="shorter sides of `full`; empty: data.image_size alone")
    flip: Flag = Field(False, description="`full`: the mirrored image too")

    @model_validator(mode="after")
    def _fits_together(self) -> ClassifierTestConfig:
        require_different("test.scales", self.scales)
        return self


class ClassifierConfig(Section):
    """A classification (pre-training) experiment."""

    model: ClassifierModelConfig = ClassifierModelConfig()
    data: ClassifierDataConfig = ClassifierDataConfig()
    train: ClassifierTrainConfig = ClassifierTrainConfig()
    test: ClassifierTestConfig = ClassifierTestConfig()
    bn_images: Images = Field(
        8192, description="training images for the strict average of BN statistics after training; 0: keep the moving one"
    )
    output_dir: FilePath = Field(Path("runs/pretrain"), description="checkpoints, logs and the resolved config go here")
