"""The data sets of a detection experiment, and what is done to their images on the way to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detection.config.class_lists import check_class_names, resolve_classes
from detection.config.limits import (
    LOADER_TIMEOUT,
    MAX_PIXELS,
    FilePath,
    Flag,
    MaxPixels,
    Section,
    Side,
    Text,
    Timeout,
    Workers,
    Year,
    require,
    require_shorter,
)

Resizing = Literal["opencv", "pillow"]
OnBadImage = Literal["error", "skip"]


class VocSource(Section):
    """A split of a Pascal VOC devkit, or of any folder with Annotations, ImageSets and JPEGImages."""

    format: Literal["voc"]
    root: FilePath = Field(Path("VOCdevkit"), description="holds VOC<year>/, or Annotations/ itself where `year` is not given")
    year: Year | None = Field(None, description="2007, 2012, ...")
    split: Text = Field(description="a file of ImageSets/Main, without .txt")
    annotated: Flag = Field(True, description="false: a split without published annotations, for detection only")


class CocoSource(Section):
    """A COCO JSON file and its images."""

    format: Literal["coco"]
    root: FilePath = Field(Path("coco"), description="`annotations` and `images` are relative to it")
    annotations: FilePath = Field(description="e.g. annotations/instances_train2017.json")
    images: FilePath = Field(description="folder of the images, e.g. train2017")


Source = Annotated[VocSource | CocoSource, Field(discriminator="format")]
Sources = tuple[Source, ...]
Augmentation = Annotated[dict[Text, dict[Text, Any]], Field(min_length=1, max_length=100)]


class DataConfig(Section):
    """Datasets and what is done to their images. Sources of a split are joined."""

    classes: Literal["voc", "coco"] | tuple[Text, ...] = Field("voc", description="class names, in the order of the labels")
    train: Sources = Field((), max_length=1000, description="e.g. - {format: voc, year: 2007, split: trainval}")
    val: Sources = Field((), max_length=1000, description="evaluated while training")
    test: Sources = Field((), max_length=1000, description="evaluated by the eval tools; `val` where it is empty")
    strict: Flag = Field(False, description="refuse faulty boxes and tags instead of clipping or dropping them with a count")
    on_bad_image: OnBadImage = Field("error", description="what to do about an image that cannot be decoded")
    max_pixels: MaxPixels = Field(MAX_PIXELS, description="an image file with more is refused: three bytes of memory for each")
    shorter_sides: tuple[Side, ...] = Field(
        (600,), min_length=1, max_length=1000, description="training: one is drawn per image"
    )
    longer_side: Side = Field(1000, description="training: greatest length of the longer side")
    resizing: Resizing = Field(
        "opencv",
        description="bilinear, in training and test: OpenCV's, or Pillow's (detectron2's), which averages when it shrinks",
    )
    augmentations: tuple[Augmentation, ...] = Field(
        ({"HorizontalFlip": {"p": 0.5}},), max_length=100, description="albumentations by class name, applied before the resize"
    )
    aspect_grouping: Flag = Field(True, description="batch landscape with landscape, portrait with portrait")
    workers: Workers = Field(2, description="loader processes per training process")
    loader_timeout: Timeout = Field(
        LOADER_TIMEOUT, description="longest wait, in seconds, for what the workers load, before it is an error; 0: no limit"
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return resolve_classes(self.classes)

    @model_validator(mode="after")
    def _fits_together(self) -> DataConfig:
        if not isinstance(self.classes, str):
            require(len(self.classes) > 0, "data.classes is an empty list: name at least one class")
            check_class_names(self.classes, "data.classes")
        require_shorter("data.shorter_sides", max(self.shorter_sides), "data.longer_side", self.longer_side)
        return self
