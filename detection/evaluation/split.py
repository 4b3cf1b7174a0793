"""The images that a detector is evaluated on, and their ground truth as COCO's and Pascal VOC's own tools would read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detection.config import CocoSource, Config, IlsvrcDetSource, Source, VocSource
from detection.data.catalog import Dataset, load_parts, load_split, resolve_root
from detection.data.coco_format import read_coco_file
from detection.data.faults import Faults
from detection.data.records import describe_crowded
from detection.errors import ConfigError, DatasetError
from detection.evaluation.coco import records_as_coco
from detection.evaluation.coco_files import as_dataset, category_ids
from detection.evaluation.detection_files import coco_results
from detection.evaluation.devkit import find_year, read_devkit
from detection.evaluation.known import ignore_unknown, without_unknown
from detection.evaluation.voc import NOTHING_TO_MEASURE, num_objects, split_by_class
from detection.evaluation.voc_files import VocEvaluation
from detection.evaluation.voc_masks import evaluate_predicted_voc_masks
from detection.structures import DetectionsByImage, Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationSplit:
    """The sources of a split and the images that were read from them."""

    sources: tuple[Source, ...]  # none where the images are a share of the training images
    dataset: Dataset
    rename: Mapping[str, str] = field(default_factory=dict)  # name in the sources -> name of the class

    @property
    def records(self) -> list[Record]:
        """One for each image."""
        return self.dataset.records

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the records' labels mean."""
        return self.dataset.class_names

    @property
    def unannotated(self) -> list[str]:
        """Names of the splits that have images only, such as VOC 2012's test split."""
        return [each.split for each in self.sources if isinstance(each, VocSource | IlsvrcDetSource) and not each.annotated]

    @property
    def is_partial(self) -> bool:
        """Whether an image does not know all classes, which neither standard's own ground truth can say."""
        return any(record.known is not None for record in self.records)

    @property
    def voc_name(self) -> str:
        """What the development kit calls the split, for the names of detection files: of the first source, else "test"."""
        first = next(iter(self.sources), None)
        return first.split if isinstance(first, VocSource) else "test"


def load_evaluation_split(config: Config) -> EvaluationSplit:
    """`data.test` of a config, or the test part of a split that `data.val` names, or else `data.val`.

    Raises ConfigError if there is none of these, DatasetError for bad data.
    """
    data = config.data
    if not (data.test or data.val):
        raise ConfigError("the config names no images to evaluate: set data.test or data.val")
    if data.test or data.held_out is None:
        dataset = load_split(data, "test" if data.test else "val", masks=config.model.mask)
    else:
        parts = load_parts(data, masks=config.model.mask)
        dataset = parts.get("test", parts["val"])
    dataset = replace(dataset, records=ignore_unknown(dataset.records))
    warn_of_crowded(dataset, config)
    return EvaluationSplit(data.test or data.val_sources, dataset, data.rename)


def warn_of_crowded(dataset: Dataset, config: Config) -> None:
    """Log how many objects cannot be found, because their image has more than `test.max_detections`."""
    crowded = describe_crowded(dataset.records, config.test.max_detections)
    if crowded is not None:
        logger.warning("%s", crowded)


def coco_ground_truth(split: EvaluationSplit) -> dict[str, Any]:
    """The content of an annotation file: the data's own where they are one COCO file, else made from the records.

    A file whose categories are renamed, or of whose images some know only some classes, is not what the detector is measured
    by: its records are.
    """
    source = next(iter(split.sources), None)
    if len(split.sources) == 1 and isinstance(source, CocoSource) and not (split.rename or split.is_partial):
        # Not warned of: the data loader has already told what was repaired.
        faults = Faults()
        own = read_coco_file(resolve_root(source.root) / source.annotations, faults)
        if set(split.class_names) <= set(own.categories.values()):
            return as_dataset(own, faults, split.class_names)
    return records_as_coco(split.records, split.class_names)


def voc_ground_truth(split: EvaluationSplit) -> list[Record]:
    """Every object as the development kit counts it, if all sources are VOC's and know all classes; else the split's own."""
    if split.is_partial or not split.sources:
        return split.records
    records: list[Record] = []
    for source in split.sources:
        if not isinstance(source, VocSource):
            return split.records
        folder = find_year(resolve_root(source.root), source.year)
        records += read_devkit(folder, source.split, split.class_names, split.rename).records
    return records


def as_coco_results(
    ground_truth: Mapping[str, Any], detections: DetectionsByImage, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Detections as the content of a result file, classes under the ids that the annotation file gives them.

    Raises DatasetError for a class that is none of its categories.
    """
    return coco_results(detections, class_names, category_ids(ground_truth))


def as_voc_evaluation(
    split: EvaluationSplit, detections: DetectionsByImage, records: Sequence[Record] | None = None
) -> VocEvaluation:
    """A model's detections beside the ground truth of the split, by VOC's classes, without those of unknown classes.

    Masks are compared with those of the split's own records.
    `records` is `voc_ground_truth(split)` where that was read before the detections were made. Raises DatasetError for
    detections of an image that the split does not hold.
    """
    records, source = voc_ground_truth(split) if records is None else records, next(iter(split.sources), None)
    year = source.year if isinstance(source, VocSource) else None
    counted = without_unknown(split.records, detections)
    masks = evaluate_predicted_voc_masks(split.records, counted, split.class_names)
    return VocEvaluation(records, split.class_names, split_by_class(records, counted, split.class_names), year, masks)


def require_objects(split: EvaluationSplit) -> None:
    """Raise ConfigError if a part of the split has no annotations, DatasetError if there is no object to find in it."""
    if split.unannotated:
        raise ConfigError(f"split '{split.unannotated[0]}' has no annotations to evaluate with: name one that has in data.test")
    if num_objects(split.records) == 0:
        raise DatasetError(NOTHING_TO_MEASURE)
