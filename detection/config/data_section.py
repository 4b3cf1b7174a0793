"""The data sets of a detection experiment, and what is done to their images on the way to the network."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from detection.config.class_lists import (
    MAX_CLASSES,
    check_class_names,
    check_known_classes,
    check_renamed_and_dropped,
    resolve_classes,
)
from detection.config.limits import (
    LOADER_TIMEOUT,
    MAX_NUMBER,
    MAX_PIXELS,
    FilePath,
    Flag,
    Fraction,
    LoaderTimeout,
    MaxPixels,
    Real,
    Section,
    Side,
    Text,
    TileOverlap,
    TileSide,
    Whole,
    Workers,
    Year,
    require,
    require_shorter,
    require_tile,
)
from detection.errors import ConfigError

BoxesIn = Literal["auto", "displayed", "stored"]
FolderFormat = Literal[
    "auto", "yolo", "labelimg", "labelme", "cvat", "labelstudio", "vott", "makesense", "via", "openimages", "csv"
]
OnMissingImage = Literal["error", "skip"]
Resizing = Literal["opencv", "pillow", "torchvision"]
OnBadImage = Annotated[Literal["error", "skip"], Field(description="what to do about an image that cannot be decoded")]
TileCut = Literal["ignore", "clip"]
IlsvrcDetSplit = Literal["train", "val", "val1", "val2", "test"]
SplitName = Literal["train", "val", "test"]

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
"""The splits that a config names, in the order in which they are told."""


class SourceSection(Section):
    """What all sources have in common."""

    weight: Real = Field(
        1.0,
        ge=0.001,
        le=1000,
        description="training: how often its images are drawn, where an image of another source counts 1",
    )
    known_classes: tuple[Text, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_CLASSES,
        description="the classes whose objects are annotated in its images; of the others it says nothing, see "
        "data.partial_labels. null: all classes",
    )
    boxes_in: BoxesIn = Field(
        "auto",
        description="the frame of the boxes of a photograph that EXIF turns: displayed, as it is seen; stored, as its pixels "
        "lie in the file; auto: stored where only that has the size that the annotation gives",
    )


class VocSource(SourceSection):
    """A split of a Pascal VOC devkit, or of any folder with Annotations, ImageSets and JPEGImages."""

    format: Literal["voc"]
    root: FilePath = Field(Path("VOCdevkit"), description="holds VOC<year>/, or Annotations/ itself where `year` is not given")
    year: Year | None = Field(None, description="2007, 2012, ...")
    split: Text = Field(description="a file of ImageSets/Main, without .txt")
    annotated: Flag = Field(True, description="false: a split without published annotations, for detection only")


class CocoSource(SourceSection):
    """A COCO JSON file and its images."""

    format: Literal["coco"]
    root: FilePath = Field(Path("coco"), description="`annotations` and `images` are relative to it")
    annotations: FilePath = Field(description="e.g. annotations/instances_train2017.json")
    images: FilePath = Field(description="folder of the images, e.g. train2017")


class IlsvrcDetSource(SourceSection):
    """A split of ImageNet DET in the layout of 2015, with its development kit; train lists may be those of 2014's kit."""

    format: Literal["ilsvrc_det"]
    root: FilePath = Field(Path("ILSVRC"), description="holds Data/DET, Annotations/DET and ImageSets/DET")
    devkit: FilePath = Field(
        Path("devkit"),
        description="the development kit, relative to `root`: its data/ has map_det.txt, lists, blacklist",
    )
    split: IlsvrcDetSplit = Field(description="val1 and val2: the two halves of val without its blacklisted images")

    @property
    def annotated(self) -> bool:
        """Whether the split's annotations are published."""
        return self.split != "test"


class FolderSource(SourceSection):
    """A folder as a labelling program leaves it, or a file of its labels; `auto` recognises the program, VOC and COCO too."""

    format: FolderFormat
    root: FilePath = Field(description="the folder, or the file of the labels")
    split: Text | None = Field(
        None, description="where the folder has splits of its own, one of them, e.g. train; null: all of its images"
    )
    annotations: FilePath | None = Field(None, description="file or folder of the labels, relative to `root`; null: looked for")
    images: FilePath | None = Field(None, description="folder of the images, relative to `root`; null: looked for")
    label_key: Text | None = Field(
        None, description="via, makesense: the attribute of the regions that is their class; null: the only one that there is"
    )


Source = Annotated[VocSource | CocoSource | IlsvrcDetSource | FolderSource, Field(discriminator="format")]
Sources = tuple[Source, ...]


class HeldOut(Section):
    """A share of the training images that is not trained on but evaluated: the same images whenever the data are the same."""

    fraction: Real = Field(0.2, gt=0, lt=1, description="share of the images")
    seed: Whole = Field(0, ge=0, le=MAX_NUMBER, description="another one holds out other images")
    group_by: Text | None = Field(
        None,
        description="images that belong together stay together: a regular expression, whose first group (or match) in the "
        "file's name tells to which they belong; or `near_duplicates`, images that look alike",
    )
    file: FilePath | None = Field(
        None, description="the split as `resdet split` writes it; where it is given, the other keys do not count"
    )


Augmentation = Annotated[dict[Text, dict[Text, Any]], Field(min_length=1, max_length=100)]


class DataConfig(Section):
    """Datasets and what is done to their images. Sources of a split are joined."""

    classes: Literal["voc", "coco", "ilsvrc_det", "auto"] | tuple[Text, ...] = Field(
        "voc", description="class names, in the order of the labels; auto: those of the training data, in alphabetical order"
    )
    classes_file: FilePath | None = Field(None, description="a text file with a class name per line, in place of `classes`")
    rename: dict[Text, Text] = Field({}, max_length=20_000, description="name in the data: name of the class, e.g. {van: car}")
    drop: Literal["others"] | tuple[Text, ...] = Field(
        (), description="names in the data whose objects are left out; others: all that are not among the classes"
    )
    train: Sources = Field((), max_length=1000, description="e.g. - {format: voc, year: 2007, split: trainval}")
    val: Annotated[Sources, Field(max_length=1000)] | HeldOut = Field(
        (), description="evaluated while training: sources, or {fraction: 0.2}, a share of the training images"
    )
    test: Sources = Field((), max_length=1000, description="evaluated by the eval tools; `val` where it is empty")
    on_missing_image: OnMissingImage = Field("error", description="what to do about a labelled image that is not there")
    strict: Flag = Field(False, description="refuse faulty boxes and tags instead of clipping or dropping them with a count")
    on_bad_image: OnBadImage = "error"
    max_pixels: MaxPixels = MAX_PIXELS
    shorter_sides: tuple[Side, ...] = Field(
        (600,), min_length=1, max_length=1000, description="training: one is drawn per image"
    )
    longer_side: Side = Field(1000, description="training: greatest length of the longer side")
    resizing: Resizing = Field(
        "opencv",
        description="bilinear, in training and test: OpenCV's, Pillow's (detectron2's), which averages when it shrinks, or "
        "torchvision's detectors': sizes rounded down and pixels not rounded at all",
    )
    augmentations: tuple[Augmentation, ...] = Field(
        ({"HorizontalFlip": {"p": 0.5}},), max_length=100, description="albumentations by class name, applied before the resize"
    )
    repeat_threshold: Fraction = Field(
        0.0,
        description="training: images with a class that less than this share of the images shows are drawn more often, by "
        "LVIS's repeat factors; 0: all equally often",
    )
    partial_labels: Flag = Field(
        True,
        description="training: a class that an image's annotations do not know (a source's known_classes, ImageNet DET's train "
        "images of 2013) is left out of the loss of its background; false: what is not annotated is background",
    )
    tile: TileSide = Field(
        0, description="training: larger images are cut into tiles with sides of so many of their own pixels; 0: none is"
    )
    tile_overlap: TileOverlap = Field(0.2, description="what neighbouring tiles share, at least, as a share of tile")
    tile_whole: Flag = Field(True, description="an image that is cut into tiles is trained on as a whole, too")
    tile_min_area: Fraction = Field(
        0.7, description="an object is learnt from a tile, cut off at its border, that holds this share of its area ..."
    )
    tile_cut: TileCut = Field(
        "ignore",
        description="... and what a tile holds less of is ignored, neither object nor background, or learnt as well: clip",
    )
    tile_empty: Real = Field(
        0.1, ge=0, le=1000, description="tiles without an object that an epoch draws, for each tile with one, at most"
    )
    aspect_grouping: Flag = Field(True, description="batch landscape with landscape, portrait with portrait")
    workers: Workers = 2
    loader_timeout: LoaderTimeout = LOADER_TIMEOUT

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels. Raises ConfigError for those that are yet to be read."""
        if self.classes_file is not None:
            raise ConfigError(
                f"the class names are in {self.classes_file}, which `detection.data.settle.settle_config` reads, but not here"
            )
        return resolve_classes(self.classes)

    @property
    def known_class_names(self) -> tuple[str, ...] | None:
        """The class names, or None where they are yet to be read from the data or a file."""
        return None if self.classes == "auto" or self.classes_file is not None else resolve_classes(self.classes)

    @property
    def held_out(self) -> HeldOut | None:
        """How validation images are taken from the training images; None where `val` has sources of its own, or none."""
        return self.val if isinstance(self.val, HeldOut) else None

    @property
    def val_sources(self) -> Sources:
        """Those of `val`; none where it is a share of the training images."""
        return () if isinstance(self.val, HeldOut) else self.val

    @property
    def all_sources(self) -> Sources:
        """Those of all splits."""
        return self.train + self.val_sources + self.test

    @model_validator(mode="after")
    def _fits_together(self) -> DataConfig:
        if not isinstance(self.classes, str):
            require(len(self.classes) > 0, "data.classes is an empty list: name at least one class")
            check_class_names(self.classes, "data.classes")
        # The words for benchmarks are what a config is built on, and give way to a file.
        require(
            self.classes_file is None or self.classes in ("voc", "coco", "ilsvrc_det"),
            "data.classes and data.classes_file both say what the classes are: leave one out",
        )
        require(
            self.classes != "auto" or self.drop != "others",
            "data.classes: auto takes every name in the data, data.drop: others leaves out all that are no classes: give one",
        )
        for number, source in enumerate(self.train):
            require(
                not isinstance(source, VocSource | IlsvrcDetSource) or source.annotated,
                f"data.train.{number}: a split without annotations is for detection only, all of it would be background",
            )
        check_names_in_data(self, self.known_class_names)
        require_tile("data.tile", self.tile)
        require_shorter("data.shorter_sides", max(self.shorter_sides), "data.longer_side", self.longer_side)
        return self


def check_names_in_data(data: DataConfig, classes: Collection[str] | None) -> None:
    """Raise ConfigError where `rename`, `drop` or the `known_classes` of a source contradict each other or the classes.

    `classes` is None where they are yet to be read from the data or a file.
    """
    check_renamed_and_dropped(data.rename, data.drop, classes)
    if classes is not None:
        for split, sources in (("train", data.train), ("val", data.val_sources), ("test", data.test)):
            for number, source in enumerate(sources):
                check_known_classes(source.known_classes, f"data.{split}.{number}.known_classes", classes)
