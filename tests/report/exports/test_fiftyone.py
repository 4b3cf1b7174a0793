"""A report's data as a data set of FiftyOne: what its JSON holds, and FiftyOne's own reader, where it is installed."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.data.catalog import Dataset
from detection.evaluation.errors import ErrorKind
from detection.evaluation.matches import NONE
from detection.report.exports.fiftyone import relative_boxes, write_fiftyone
from detection.report.reported import analyse
from tests.report.scenes import HOSTILE_NAMES, reported, scene


@pytest.fixture
def analysis():
    return analyse(reported(*scene(class_names=HOSTILE_NAMES)))


def samples_of(folder: Path) -> list[dict]:
    return json.loads((folder / "fiftyone/samples.json").read_text())["samples"]


def test_samples_hold_what_was_matched(analysis, tmp_path):
    write_fiftyone(analysis, tmp_path)
    samples, matches = samples_of(tmp_path), analysis.matches
    files = [str(record.file.absolute()) for record in analysis.reported.dataset.records]
    assert [sample["filepath"] for sample in samples] == files
    for field, table in (("ground_truth", matches.objects), ("predictions", matches.detections)):
        assert [len(sample[field]["detections"]) for sample in samples] == np.bincount(table.images, minlength=12).tolist()
    predictions = [label for sample in samples for label in sample["predictions"]["detections"]]
    objects = [label for sample in samples for label in sample["ground_truth"]["detections"]]
    kinds, row = Counter(analysis.errors.kinds.tolist()), matches.at(0.5)
    verdicts = Counter(label["eval"] for label in predictions)
    assert verdicts["tp"] == kinds[ErrorKind.CORRECT] and verdicts["ignored"] == kinds[ErrorKind.IGNORED]
    assert verdicts.total() == len(predictions) and verdicts["fp"] == sum("error" in each for each in predictions)
    assert Counter(label["eval"] for label in objects)["tp"] == (matches.detection_of(row) != NONE).sum()
    assert {label["label"] for label in predictions} == set(HOSTILE_NAMES)
    assert all(0 <= label["confidence"] <= 1 and len(label["bounding_box"]) == 4 for label in predictions)


def test_boxes_are_shares_of_the_image():
    assert relative_boxes(np.array([[10.0, 20, 60, 80]]), (100, 200)) == [[0.05, 0.2, 0.25, 0.6]]
    assert relative_boxes(np.zeros((0, 4)), (100, 200)) == []


def test_without_images_the_files_are_whole(tmp_path):
    write_fiftyone(analyse(reported(Dataset(("cat",), []), {})), tmp_path)
    assert samples_of(tmp_path) == []
    assert json.loads((tmp_path / "fiftyone/metadata.json").read_text())["info"]["classes"] == ["cat"]


def test_a_file_that_is_no_text_is_named(tmp_path):
    dataset, found = scene(num_images=1)
    records = [replace(dataset.records[0], file=Path("/a/\udcff.png"))]
    write_fiftyone(analyse(reported(Dataset(dataset.class_names, records), found)), tmp_path)
    assert samples_of(tmp_path)[0]["filepath"] == "/a/\\udcff.png"


def test_fiftyone_reads_it(analysis, tmp_path):
    """Without its database: as far as its importer goes."""
    data = pytest.importorskip("fiftyone.utils.data", reason="FiftyOne is not installed")
    write_fiftyone(analysis, tmp_path)
    importer = data.LegacyFiftyOneDatasetImporter(str(tmp_path / "fiftyone"))  # what its importer takes for these files
    with importer:
        read = list(importer)
    assert [len(sample.predictions.detections) for sample in read] == [
        len(sample["predictions"]["detections"]) for sample in samples_of(tmp_path)
    ]
