"""The sample data: the same every time, no handwriting in two splits, one truth in two formats."""

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.config import CocoSource, VocSource
from detection.data import load_dataset, read_image
from detection.data.digits import CLASSES, dataset, default_folder, drawing
from tests.datasets.scripts import DATASETS, load_script

script = load_script("make_digits")

SMALL = ["--train", "40", "--val", "3", "--test", "30", "--crops", "40", "--image-size", "192", "--max-digit", "96"]


def make(folder: Path, *options: str) -> int:
    return script.main(["--output", str(folder), *SMALL, *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def digits(module_path) -> Path:
    folder = module_path / "digits"
    assert make(folder) == 0
    return folder


@pytest.fixture(scope="module")
def material():
    return drawing.load_material()


def load_voc(digits: Path, split: str):
    return load_dataset([VocSource(format="voc", root=digits / "VOCdevkit", year="2007", split=split)], CLASSES, strict=True)


def load_coco(digits: Path, split: str):
    annotations = digits / f"coco/annotations/instances_{split}.json"
    source = CocoSource(format="coco", root=digits, annotations=annotations, images=Path("VOCdevkit/VOC2007/JPEGImages"))
    return load_dataset([source], CLASSES, strict=True)


def test_the_same_seed_gives_the_same_bytes(digits, tmp_path):
    assert make(tmp_path / "again") == 0
    assert contents(tmp_path / "again") == contents(digits)
    assert make(tmp_path / "other", "--seed", "1") == 0
    assert (
        contents(tmp_path / "other")["VOCdevkit/VOC2007/JPEGImages/test_00000.jpg"]
        != contents(digits)["VOCdevkit/VOC2007/JPEGImages/test_00000.jpg"]
    )


@pytest.mark.parametrize(("split", "count"), [("train", 40), ("val", 3), ("test", 30)])
def test_both_formats_tell_the_same(digits, split, count):
    voc, coco = load_voc(digits, split), load_coco(digits, split)
    assert len(voc.records) == len(coco.records) == count and not voc.faults and not coco.faults
    for one, other in zip(voc.records, coco.records, strict=True):
        assert one.file.name == other.file.name and one.size_hw == other.size_hw == read_image(one.file).shape[:2]
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=0)
        assert one.labels.tolist() == other.labels.tolist()
        # What is a crowd in COCO can only be difficult in VOC; COCO knows no difficult objects.
        assert (one.difficult | ~other.crowd).all()


def test_there_is_something_of_everything(digits):
    records = load_voc(digits, "train").records + load_voc(digits, "test").records
    crowds = [record.crowd.any() for record in load_coco(digits, "train").records + load_coco(digits, "test").records]
    assert any(len(record.labels) == 0 for record in records)
    assert any(record.difficult.any() for record in records) and any(crowds)
    assert {label for record in records for label in record.labels.tolist()} == set(range(10))
    assert {record.size_hw for record in records} == {(144, 192), (192, 144)}


def test_no_handwriting_is_in_two_splits(material):
    splits = drawing.split_scans(material.labels, np.random.default_rng(0))
    together = np.concatenate(list(splits.values()))
    assert sorted(together) == list(range(len(material.labels)))
    for name, scans in splits.items():
        assert len(scans) == pytest.approx(drawing.SPLIT_SHARES[name] * len(together), abs=10)
        assert np.bincount(material.labels[scans], minlength=10).min() >= 0.9 * len(scans) / 10


def test_each_split_is_painted_from_its_own_scans(tmp_path, monkeypatch):
    used: dict[str, set[bytes]] = {}
    digit_alpha, write_scenes, write_crops = drawing.digit_alpha, dataset.write_scenes, dataset.write_crops
    current = threading.local()  # the parts are made in threads

    def noting_alpha(scan, side, angle):
        used.setdefault(current.split, set()).add(scan.tobytes())
        return digit_alpha(scan, side, angle)

    def noting_scenes(folder, split, *rest):
        current.split = split
        write_scenes(folder, split, *rest)

    def noting_crops(folder, *rest):
        current.split = folder.name
        write_crops(folder, *rest)

    monkeypatch.setattr(drawing, "digit_alpha", noting_alpha)
    monkeypatch.setattr(dataset, "write_scenes", noting_scenes)
    monkeypatch.setattr(dataset, "write_crops", noting_crops)
    assert make(tmp_path / "digits") == 0
    assert set(used) == {"train", "val", "test"} and min(map(len, used.values())) > 5
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not used[one] & used[other]


@pytest.mark.parametrize("side", [24, 60, 128])
@pytest.mark.parametrize("angle", [-20, 0, 20])
def test_boxes_are_tight(material, side, angle):
    """Ink touches each edge of the mask, and a digit is about as high as asked."""
    for scan in material.scans[:20]:
        alpha = drawing.digit_alpha(scan, side, angle)
        assert all(edge.max() > 0.3 for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
        assert alpha.min() >= 0 and alpha.max() == 1 and 0.75 * side < alpha.shape[0] < 1.4 * side


def test_only_difficult_digits_and_crowds_overlap_much(digits):
    for record in load_voc(digits, "train").records:
        boxes = [tuple(box) for box in record.boxes.tolist()]
        for index, box in enumerate(boxes):
            assert all(drawing.overlap(box, other) <= 0.3 for other in boxes[:index])


def test_crops_are_class_folders(digits):
    for split, count in (("train", 40), ("val", 10)):
        files = sorted((digits / "crops" / split).glob("*/*.png"))
        assert len(files) == count and {file.parent.name for file in files} <= set(CLASSES)
        assert all(read_image(file).shape == (64, 64, 3) for file in files[:5])
        assert len(list((digits / "crops" / split).iterdir())) == 10


def test_coco_json_is_what_pycocotools_reads(digits):
    from pycocotools.coco import COCO

    coco = COCO(str(digits / "coco/annotations/instances_test.json"))
    assert len(coco.getImgIds()) == 30 and [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)


def test_a_complete_set_is_left_alone(digits, capsys):
    before = (digits / "digits.json").stat().st_mtime_ns
    assert make(digits) == 0
    assert "is complete" in capsys.readouterr().out and (digits / "digits.json").stat().st_mtime_ns == before


def test_other_parameters_need_force(tmp_path, capsys):
    folder = tmp_path / "digits"
    assert make(folder) == 0
    before = contents(folder)
    assert make(folder, "--test", "1") == 2
    assert "--force" in capsys.readouterr().err and contents(folder) == before
    assert make(folder, "--test", "1", "--force") == 0
    assert len(json.loads((folder / "coco/annotations/instances_test.json").read_text())["images"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_someone_elses_folder_is_never_deleted(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert make(tmp_path, "--force") == 2
    assert "is no sample data set" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_an_interrupted_run_leaves_no_set(tmp_path, monkeypatch):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "write_crops", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "digits")
    assert not (tmp_path / "digits").exists()
    assert make(tmp_path / "digits") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    def full(self: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert make(tmp_path / "digits") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write") and error.count("\n") == 1 and "No space left" in error


@pytest.mark.parametrize(
    "options",
    [["--image-size", "100"], ["--image-size", "500"], ["--min-digit", "90", "--max-digit", "30"], ["--max-digit", "150"]],
)
def test_impossible_sizes(options, tmp_path, capsys):
    assert make(tmp_path / "digits", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and options[-1] in error


def test_without_scikit_learn_it_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert make(tmp_path / "digits") == 2
    assert capsys.readouterr().err == "error: the sample data needs scikit-learn: pip install 'resdet[sample]'\n"


def test_it_goes_where_the_configs_look(tmp_path, monkeypatch):
    monkeypatch.delenv("RESDET_DATASETS", raising=False)
    assert script.default_output() == DATASETS / "digits"
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path))
    assert script.default_output() == tmp_path / "digits" == default_folder()
