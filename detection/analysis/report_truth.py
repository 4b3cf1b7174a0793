"""The ground truth of reported detections: a config's test split, a COCO annotation file, or a VOC development kit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backbones.errors import shorten
from detection.config import Config
from detection.data.catalog import Dataset
from detection.data.classes import ClassMap
from detection.data.coco import read_coco_content
from detection.data.coco_format import CocoId, read_coco_file
from detection.data.faults import Faults
from detection.data.images import image_size
from detection.data.orientation import turn_records
from detection.errors import ConfigError, DatasetError, MissingImageError
from detection.evaluation.devkit import find_year, read_devkit, sort_classes
from detection.evaluation.split import coco_ground_truth, load_evaluation_split
from detection.files import is_file
from detection.structures import Record


@dataclass(frozen=True)
class TruthFiles:
    """The ground truth of detection files: what a person names beside them. A config may be named in its place."""

    annotations: Path | None = None  # of COCO result files
    images: Path | None = None  # the folder of the annotations' pictures; without it they may be missing
    devkit: Path | None = None  # of the kit's text files: holds VOC<year>/, or Annotations/ itself
    year: str | None = None
    split: str | None = None  # "test" by default


@dataclass(frozen=True)
class ReportTruth:
    """A data set to measure detections on, and how files of detections name its classes."""

    dataset: Dataset = field(repr=False)
    categories: Mapping[CocoId, str]  # id in result files -> name
    split: str = "test"  # in the names of the kit's files

    def as_coco(self) -> dict[str, Any]:
        """What reading a result file needs to know of its annotation file."""
        images = [{"id": record.image_id, "file_name": record.file.name} for record in self.dataset.records]
        return {"images": images, "categories": [{"id": key, "name": name} for key, name in self.categories.items()]}


class TruthReader:
    """Reads each ground truth once, however many detections it is for. Raises ConfigError or DatasetError."""

    def __init__(self, files: TruthFiles, config: Config | None, tell: Callable[[str], None]) -> None:
        self._files, self._config, self._tell = files, config, tell
        self._read: dict[str, ReportTruth] = {}  # by the file, or the data section of the config

    def of_config(self, config: Config) -> ReportTruth:
        """The split that a detector of this config is evaluated on."""
        key = config.data.model_dump_json()
        if key not in self._read:
            split = load_evaluation_split(config)
            if split.unannotated:
                raise ConfigError(
                    f"split {shorten(split.unannotated[0])} has no annotations to compare with: name one that has (data.test)"
                )
            categories = {each["id"]: each["name"] for each in coco_ground_truth(split)["categories"]}
            self._read[key] = ReportTruth(split.dataset, categories, split.voc_name)
        return self._read[key]

    def of_results(self, label: str, annotations: Path | None) -> ReportTruth:
        """That of a COCO result file; `annotations` are its own, which lie beside it."""
        file = annotations or self._files.annotations
        if file is None:
            return self._of_given_config(label, "--annotations FILE")
        key = str(file)
        if key not in self._read:
            self._read[key] = read_coco_truth(file, self._files.images)
        return self._read[key]

    def of_voc(self, label: str) -> ReportTruth:
        """That of a folder of the kit's text files."""
        if self._files.devkit is None:
            return self._of_given_config(label, "--devkit DIR")
        key = str(self._files.devkit)
        if key not in self._read:
            folder, split = find_year(self._files.devkit, self._files.year), self._files.split or "test"
            kit = read_devkit(folder, split)
            dataset = Dataset(kit.class_names, [with_size(record) for record in kit.records])
            self._read[key] = ReportTruth(dataset, {}, split)
        return self._read[key]

    def with_classes(self, truth: ReportTruth, names: Sequence[str], label: str) -> ReportTruth:
        """The ground truth with the classes of detection files, which may be of classes without objects; absent ones are told.

        Raises DatasetError for a class that a config does not have.
        """
        known = truth.dataset.class_names
        lacking, more = [name for name in known if name not in names], sort_classes(set(names) - set(known))
        if lacking:
            self._tell(f"{shorten(label)} has no detection file for: {', '.join(lacking)}; they count as never found")
        if more and self._files.devkit is None:
            raise DatasetError(f"{shorten(label)} has detections of {shorten(more[0])}, which is no class of the config")
        return replace(truth, dataset=replace(truth.dataset, class_names=(*known, *more))) if more else truth

    def _of_given_config(self, label: str, option: str) -> ReportTruth:
        if self._config is None:
            raise ConfigError(f"{shorten(label)} holds detections alone: give {option} to compare with, or --config FILE")
        return self.of_config(self._config)


def read_coco_truth(annotations: Path, images: Path | None = None) -> ReportTruth:
    """The images and objects of an annotation file, by the rules of training; its classes are all of its categories.

    Without a folder of images these may be missing. Raises DatasetError or ConfigError.
    """
    faults = Faults()
    content = read_coco_file(annotations, faults)
    classes = ClassMap.to(list(dict.fromkeys(content.categories.values())))
    try:
        records = read_coco_content(content, images, classes, faults)
    except MissingImageError as error:  # whose own advice is a key of a config, and there is none
        raise DatasetError(f"{error.args[0]}; without a folder of images (--images) pictures may be missing") from None
    if images is not None:
        records = turn_records(records, "auto", faults)
    faults.warn()
    dataset = Dataset(classes.names, records, [note.message for note in faults.notes])
    return ReportTruth(dataset, content.categories)


def with_size(record: Record) -> Record:
    """A devkit's record with a size: the image's where the annotation tells none, or all that the boxes reach to."""
    if record.size_hw != (0, 0):
        return record
    if is_file(record.file):
        return replace(record, size_hw=image_size(record.file))
    right, bottom = record.boxes[:, 2:].amax(dim=0).ceil().int().tolist() if len(record.boxes) else (1, 1)
    return replace(record, size_hw=(max(bottom, 1), max(right, 1)))
