"""What a person may name to have it reported, and the ground truth of each: runs, checkpoints, detection files, reports."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

import torch

from backbones.errors import shorten
from detection.analysis.report_truth import ReportTruth, TruthFiles, TruthReader
from detection.config import Config, load_config, override_config
from detection.data.catalog import Dataset
from detection.data.settle import settle_config
from detection.engine.run_curves import RunCurves, read_run
from detection.errors import ConfigError, DatasetError
from detection.evaluation.by_image import group_by_image, results_by_image
from detection.evaluation.coco_files import read_results
from detection.evaluation.detection_files import find_voc_detections, read_voc_detections
from detection.files import METRICS_FILE, TRAINED_FILES, exists, find_trained_weights, is_file
from detection.inference.detector import load_detector
from detection.inference.evaluate import EvaluationResult, evaluate, evaluate_detections
from detection.report.exports.coco import ANNOTATIONS_FILE, DETECTIONS_FILE
from detection.report.reported import ReportedDetector
from detection.structures import Detections, DetectionsByImage
from detection.weights.checkpoint import checkpoint_config, read_checkpoint
from detection.weights.zoo import find_detector

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
SourceKind = Literal["detector", "results", "voc"]


@dataclass(frozen=True)
class NamedSource:
    """What a name stands for."""

    label: str  # as it was typed
    kind: SourceKind
    path: Path  # the checkpoint or its name in the zoo, the result file, or the folder of the kit's files
    annotations: Path | None = None  # the ground truth that lies beside a report's detections


@dataclass(frozen=True)
class OpenSource:
    """A source whose ground truth, and detections if these are in a file, were read: nothing of it can be refused any more."""

    named: NamedSource
    truth: ReportTruth
    detections: DetectionsByImage | None = None  # None: a detector has yet to find them
    config: Config | None = None  # the detector's
    weights: Path | None = None
    run: RunCurves | None = None


def load_reported(
    names: Sequence[str | Path],
    *,
    truth: TruthFiles | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: torch.device | str = "cpu",
    find_weights: Callable[[Path], Path] = find_detector,
    tell: Tell = logger.info,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[ReportedDetector]:
    """Detections and their ground truth, of each name: all on the same images, with the same classes in the same order.

    A name is a run's folder; a checkpoint, or its name in the zoo; a COCO result file (.json); a folder of the development
    kit's files (comp4_det_SPLIT_CLASS.txt); or a report's folder. Detectors are run on `data.test` (or `data.val`) of `config`,
    by default of their own, changed by `overrides`; `config` also is the ground truth of files for which `truth` names none.
    The ground truth of the first holds for all. `progress` hears a name, how many of its images are done, and of how many.
    Raises ConfigError, DatasetError or CheckpointError, all that can be refused before the first image.
    """
    files = truth or TruthFiles()
    sources = [recognise(name) for name in names]
    _require_different(sources)
    _require_used(files, config, overrides, sources)
    settled = settle_config(load_config(config, overrides), tell) if config is not None else None
    reader = TruthReader(files, settled, tell)
    opened = [_open(source, reader, settled, overrides, find_weights, tell) for source in sources]
    for other in opened[1:]:
        require_comparable(opened[0], other)
    dataset = opened[0].truth.dataset
    return [_evaluated(each, dataset, device, progress).reported(each.named.label, each.run) for each in opened]


def recognise(name: str | Path) -> NamedSource:
    """What a name stands for, as far as the file system tells. Raises DatasetError for a folder that is none of these."""
    label, path = str(name), Path(name)
    if not path.is_dir():
        return NamedSource(label, "results" if path.suffix.lower() == ".json" else "detector", path)
    weights = find_trained_weights(path)
    if weights is not None:
        return NamedSource(label, "detector", weights)
    if exists(path / ANNOTATIONS_FILE) and exists(path / DETECTIONS_FILE):
        return NamedSource(label, "results", path / DETECTIONS_FILE, path / ANNOTATIONS_FILE)
    if any(path.glob("comp*_det_*_*.txt")):
        return NamedSource(label, "voc", path)
    raise DatasetError(
        f"{shorten(label)} is no run (it has no {' or '.join(TRAINED_FILES)}), no folder of detection files "
        f"(comp4_det_SPLIT_CLASS.txt) and no report (it has no {DETECTIONS_FILE}): name one of these, or a file"
    )


def require_comparable(first: OpenSource, other: OpenSource) -> None:
    """Raise DatasetError, naming both, unless two sources have the same classes and the same images."""
    both = f"{shorten(first.named.label)} and {shorten(other.named.label)}"
    report = next((each.named for each in (first, other) if each.named.annotations is not None), None)
    fix = "give a config whose data.test both are to be measured on (--config FILE)"
    if report is not None:  # its ground truth lies in its folder, whatever the config
        fix = f"make the report {shorten(report.label)} again on the images and classes of the other"
    names = (first.truth.dataset.class_names, other.truth.dataset.class_names)
    # Ids as texts: 7 in a COCO file is "7" in a development kit.
    ids = tuple({str(record.image_id): record.file.stem for record in each.truth.dataset.records} for each in (first, other))
    for what, one, two in (("classes", set(names[0]), set(names[1])), ("images", set(ids[0].items()), set(ids[1].items()))):
        if one != two:
            lacking, example = (other, min(one - two, key=str)) if one - two else (first, min(two - one, key=str))
            shown = shorten(example if isinstance(example, str) else example[0])
            raise DatasetError(f"{both} have different {what}: {shorten(lacking.named.label)} lacks {shown}; {fix}")


def _require_different(sources: Sequence[NamedSource]) -> None:
    labels = [source.label for source in sources]
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{shorten(repeated)} is named twice: name different ones")


def _require_used(
    files: TruthFiles, config: str | Path | None, overrides: Sequence[str], sources: Sequence[NamedSource]
) -> None:
    """Raise ConfigError for a file or an override that none of the sources needs: it was meant for something else."""
    kinds = {source.kind for source in sources}
    if not kinds & {"results"} and (files.annotations or files.images):
        option = "--annotations" if files.annotations else "--images"
        raise ConfigError(f"{option} goes with a COCO result file (.json), and none is named")
    if not kinds & {"voc"} and (files.devkit or files.year or files.split):
        option = "--devkit" if files.devkit else "--year" if files.year else "--split"
        raise ConfigError(f"{option} goes with a folder of detection files (comp4_det_SPLIT_CLASS.txt), and none is named")
    if overrides and config is None and "detector" not in kinds:
        raise ConfigError(f"{shorten(overrides[0])} changes the config of a detector, and none is named: leave it out")
    reports = [source for source in sources if source.annotations is not None]
    results = any(source.kind == "results" and source.annotations is None for source in sources)
    if reports and files.annotations and not results:
        _refuse_for_reports("--annotations", reports)
    used = "detector" in kinds or (results and not files.annotations) or ("voc" in kinds and not files.devkit)
    if config is not None and not used:
        if reports:
            _refuse_for_reports("--config", reports)
        raise ConfigError("--config is not needed: all that is named is measured on what the other options say; leave it out")


def _refuse_for_reports(option: str, reports: Sequence[NamedSource]) -> NoReturn:
    label = shorten(reports[0].label)
    raise ConfigError(f"{option} changes nothing: {label} is a report, whose folder holds its ground truth; leave it out")


def _open(
    source: NamedSource,
    reader: TruthReader,
    config: Config | None,
    overrides: Sequence[str],
    find_weights: Callable[[Path], Path],
    tell: Tell,
) -> OpenSource:
    if source.kind == "results":
        truth = reader.of_results(source.label, source.annotations)
        results = read_results(source.path, truth.as_coco())
        dataset = truth.dataset
        found = results_by_image(dataset.records, results, truth.categories, dataset.class_names)
        return OpenSource(source, truth, found)
    if source.kind == "voc":
        return _open_voc(source, reader)
    weights = find_weights(source.path)
    own = checkpoint_config(read_checkpoint(weights, "detector"), weights)
    if config is None:
        used = override_config(own, overrides)
    else:
        used = own.model_copy(update={"data": config.data, "test": config.test, "train": config.train})
    run = _curves_beside(weights, tell) if exists(source.path) else None
    return OpenSource(source, reader.of_config(used), config=used, weights=weights, run=run)


def _open_voc(source: NamedSource, reader: TruthReader) -> OpenSource:
    truth = reader.of_voc(source.label)
    files = find_voc_detections(source.path, truth.split)
    truth = reader.with_classes(truth, list(files), source.label)
    records, names = truth.dataset.records, truth.dataset.class_names
    by_class = {name: read_voc_detections(file, records) for name, file in files.items()}
    return OpenSource(source, truth, group_by_image(records, by_class, names))


def _curves_beside(weights: Path, tell: Tell) -> RunCurves | None:
    """What the run logged whose checkpoint this is; None where it is no run's, or its log cannot be read, which is told."""
    if weights.name not in TRAINED_FILES or not is_file(weights.parent / METRICS_FILE):
        return None
    try:
        return read_run(weights.parent)
    except DatasetError as error:
        tell(f"no training curves: {error}")
        return None


def _evaluated(
    source: OpenSource, dataset: Dataset, device: torch.device | str, progress: Callable[[str, int, int], None] | None
) -> EvaluationResult:
    """The source's detections against the ground truth of the first."""
    own = source.truth.dataset
    if source.detections is not None:
        return evaluate_detections(dataset, _adapted(source.detections, own, dataset))
    assert source.config is not None and source.weights is not None
    model = load_detector(source.weights, source.config, device)

    def report(done: int) -> None:
        if progress is not None:
            progress(source.named.label, done, len(own))

    result = evaluate(model, own, report=report)
    if own is dataset:
        return result
    found = _adapted(result.detections, own, dataset)
    return replace(
        evaluate_detections(dataset, found, source.config.test.max_detections),
        latency=result.latency,
        max_pixels=result.max_pixels,
    )


def _adapted(detections: DetectionsByImage, own: Dataset, dataset: Dataset) -> DetectionsByImage:
    """Detections under the labels and the image ids of another data set of the same classes and images."""
    if own is dataset:
        return detections
    labels = torch.tensor([dataset.class_names.index(name) for name in own.class_names], dtype=torch.long)
    ids = {str(record.image_id): record.image_id for record in dataset.records}

    def adapted(found: Detections) -> Detections:
        return Detections(found.boxes, found.scores, labels[found.labels])

    return {ids[str(image_id)]: adapted(found) for image_id, found in detections.items()}
