"""Detection files against a devkit, from a program."""

from pathlib import Path

import pytest

from detection.errors import DatasetError
from detection.evaluation import evaluate_voc, evaluate_voc_files
from detection.evaluation.detection_files import write_voc_detections
from detection.evaluation.voc_files import read_voc_files
from tests.evaluation.scenes import jittered, random_scene, write_devkit

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A devkit VOC2007 with a test split, and detections of it in `found`."""
    records, _ = random_scene(0, num_images=12)
    write_devkit(tmp_path / "VOC2007", records, NAMES)
    write_voc_detections(tmp_path / "found", jittered(records, 0, 3), NAMES)
    return tmp_path


def test_files_give_what_memory_gives(folder):
    records, _ = random_scene(0, num_images=12)
    for metric in ("voc07", "area"):
        expected = evaluate_voc(records, jittered(records, 0, 3), NAMES, metric=metric)
        result = evaluate_voc_files(folder, folder / "found", "2007", metric=metric)
        assert result.ap == pytest.approx(expected.ap, abs=1e-6)
    assert evaluate_voc_files(folder / "VOC2007", folder / "found").metric == "voc07"  # the year of the folder's name


def test_classes_without_a_file_are_known(folder):
    (folder / "found/comp4_det_test_dog.txt").unlink()
    evaluation = read_voc_files(folder, folder / "found", "2007")
    assert evaluation.classes_without_file == ["dog"]
    assert set(evaluation.evaluate().ap) == {"cat", "cow"}


def test_a_class_that_only_the_files_have_comes_last(folder):
    (folder / "found/comp4_det_test_aardvark.txt").write_text("")
    evaluation = read_voc_files(folder, folder / "found", "2007")
    assert evaluation.class_names[-1] == "aardvark" and evaluation.evaluate().absent == ("aardvark",)


def test_a_missing_year_is_named(folder):
    with pytest.raises(DatasetError, match=r"it holds VOC2007: name the year \(--year\)"):
        evaluate_voc_files(folder, folder / "found", "2012")
