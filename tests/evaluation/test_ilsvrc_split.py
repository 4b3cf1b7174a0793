"""A config's split of ImageNet DET and the kit: what is not evaluated, and submissions by the kit's numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from detection.config import Config, IlsvrcDetSource, VocSource
from detection.data.catalog import Dataset
from detection.errors import ConfigError, DatasetError
from detection.evaluation.ilsvrc_files import evaluate_det_files
from detection.evaluation.ilsvrc_records import evaluate_det_records
from detection.evaluation.ilsvrc_split import submission_numbers, unevaluated_of, write_submission
from detection.evaluation.split import EvaluationSplit, load_evaluation_split
from tests.evaluation.ilsvrc_tree import write_det
from tests.evaluation.scenes import make_detections, make_record

# Class 0 is "dog", whose id is 2: in a one of two is near, in b it is false; class 1 is "big cat".
FOUND: dict[str, tuple[list[Sequence[float]], list[float], list[int]]] = {
    "a": ([(9, 9, 20, 20), (30, 1, 180, 5), (0.25, 1, 200.123456, 5)], [0.1, 1 / 3, 1 / 7], [0, 1, 1]),
    "b": ([(50, 9, 70, 20)], [0.7], [0]),
    "c": ([(5, 5, 301, 9), (9, 9, 20, 20)], [0.9, 0.8], [0, 0]),
}


@pytest.fixture(scope="module")
def root(module_path):
    return write_det(module_path / "ILSVRC")


def split_of(root, *, split="val", classes=("dog", "big cat"), **data):
    source = {"format": "ilsvrc_det", "root": root, "split": split}
    return load_evaluation_split(Config.model_validate({"data": {"classes": classes, "test": [source], **data}}))


def detections():
    return {image_id: make_detections(*columns) for image_id, columns in FOUND.items()}


def test_the_blacklist_has_names(root):
    assert unevaluated_of(split_of(root)) == {"c": ["dog"]}
    renamed = split_of(root, classes=("animal", "big cat"), rename={"dog": "animal"})
    assert unevaluated_of(renamed) == {"c": ["animal"]}
    assert unevaluated_of(split_of(root, split="test")) == {}


def test_images_and_classes_have_the_kits_numbers(root):
    split = split_of(root)
    assert [record.image_id for record in split.records] == ["c", "a", "b"]
    numbers = submission_numbers(split)
    assert numbers.images.tolist() == [2, 0, 1] and numbers.labels.tolist() == [1, 0]
    val2 = submission_numbers(split_of(root, split="val2"))
    assert sorted(val2.images.tolist()) == [0, 1]
    assert submission_numbers(split_of(root, split="test")).images.tolist() == [0, 1]


@pytest.mark.parametrize("classes", [("dog", "big cat"), ("big cat", "dog")])
def test_a_submission_has_the_numbers_of_the_records(root, tmp_path, classes):
    split = split_of(root, classes=classes)
    labels = [classes.index(name) for name in ("dog", "big cat")]
    found = {key: make_detections(boxes, scores, [labels[k] for k in own]) for key, (boxes, scores, own) in FOUND.items()}
    write_submission(tmp_path / "det.txt", split, submission_numbers(split), found)
    rows = np.loadtxt(tmp_path / "det.txt")
    assert rows[:, 0].tolist() == [1, 1, 1, 2, 3, 3] and rows[:, 1].tolist() == [1, 1, 2, 2, 2, 2]
    assert rows[1, 3:].tolist() == pytest.approx([0.25, 1, 199.123456, 4], abs=1e-5)
    result = evaluate_det_records(split.records, found, split.class_names, unevaluated_of(split))
    assert result.ap == {"dog": pytest.approx(0.5), "big cat": 1.0}
    assert evaluate_det_files(root / "devkit", tmp_path / "det.txt").as_json()["AP"] == result.ap


def test_a_half_of_val_has_numbers_of_its_own(root, tmp_path):
    split = split_of(root, split="val2")
    found = {key: each for key, each in detections().items() if key != "b"}
    write_submission(tmp_path / "det.txt", split, submission_numbers(split), found)
    result = evaluate_det_records(split.records, found, split.class_names, unevaluated_of(split))
    assert result.ap == {"dog": 1.0, "big cat": 1.0}
    assert evaluate_det_files(root / "devkit", tmp_path / "det.txt", "val2").ap == result.ap


def test_classes_without_an_id_of_their_own_are_refused(root):
    with pytest.raises(DatasetError, match="class 'dogs' is no class; did you mean 'dog'"):
        submission_numbers(split_of(root, classes=("dogs", "dog", "big cat")))
    merged = split_of(root, classes=("animal",), rename={"dog": "animal", "big cat": "animal"})
    with pytest.raises(DatasetError, match="class 'animal' is several classes of .*map_det.txt: its detections cannot"):
        submission_numbers(merged)


def test_images_without_a_number_are_refused(root, tmp_path):
    other = write_det(tmp_path / "ILSVRC")
    (other / "devkit/data/det_val.txt").write_text("a 1\nx 2\nc 3\n")
    with pytest.raises(DatasetError, match="image 'b' has no number in the list of val: is the kit of another year"):
        submission_numbers(split_of(other))


def test_other_data_have_no_numbers():
    voc = VocSource(format="voc", split="test")
    dataset = Dataset(("dog",), [make_record("a")])
    for sources in ((voc,), (), (IlsvrcDetSource(format="ilsvrc_det", split="val"), voc)):
        with pytest.raises(ConfigError, match="the numbers of images that a split of ImageNet DET has"):
            submission_numbers(EvaluationSplit(sources, dataset))
    assert unevaluated_of(EvaluationSplit((voc,), dataset)) == {}
