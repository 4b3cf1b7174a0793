"""Joining sources, finding roots, and telling what was wrong."""

import logging
from pathlib import Path

import pytest

from detection.config import DataConfig, Source
from detection.data.catalog import load_dataset, load_split, read_sources, resolve_root
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.errors import DatasetError
from tests.data.pictures import CLASSES, PICTURES, Picture, Thing, coco_source, voc_source, write_coco, write_devkit


def test_joined_years_and_formats(tmp_path):
    write_devkit(tmp_path, PICTURES[:2])
    write_devkit(tmp_path, PICTURES[2:], year="2012", split="train")
    write_coco(tmp_path)
    sources: list[Source] = [voc_source(tmp_path), voc_source(tmp_path, "2012", "train"), coco_source(tmp_path)]
    dataset = load_dataset(sources, CLASSES)
    assert [record.image_id for record in dataset.records] == ["000001", "000002", "000003", "000004", 1, 2, 3, 4]
    assert dataset.class_names == CLASSES and len(dataset) == 8


def test_same_image_in_two_sources(tmp_path):
    write_devkit(tmp_path)
    write_devkit(tmp_path, PICTURES[:1], year="2012")
    with pytest.raises(DatasetError, match=r"'000001' occurs twice: .*VOC2007.*VOC2012"):
        load_dataset([voc_source(tmp_path), voc_source(tmp_path, "2012")], CLASSES)


def test_no_sources_and_no_images(tmp_path):
    with pytest.raises(DatasetError, match="no source"):
        load_dataset([], CLASSES)
    write_coco(tmp_path, content={"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
    with pytest.raises(DatasetError, match=r"instances\.json holds no image"):
        load_dataset([coco_source(tmp_path)], ("cat",))


def test_images_that_are_all_refused_are_one_fault_each(tmp_path):
    write_devkit(tmp_path)
    (tmp_path / "VOC2007/ImageSets/Main/trainval.txt").write_text("a,b\n")
    faults = Faults(collect=True)
    assert read_sources([voc_source(tmp_path)], ClassMap.to(CLASSES), faults) == []
    assert len(faults.errors) == 1 and "no image of 'a,b'" in faults.errors[0]


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_missing_images_are_left_out_where_that_is_asked_for(tmp_path, caplog, layout):
    def load(**keys):
        return load_split(DataConfig(classes=CLASSES, train=(source,), **keys), "train")

    (write_devkit if layout == "voc" else write_coco)(tmp_path)
    source = voc_source(tmp_path) if layout == "voc" else coco_source(tmp_path)
    images = sorted(tmp_path.rglob("*.jpg"))
    images[1].unlink()
    with pytest.raises(DatasetError, match="000002"):
        load()
    dataset = load(on_missing_image="skip")
    assert [record.file for record in dataset.records] == [images[0], *images[2:]]
    assert "1 x image that does not exist, left out; the first: " in caplog.text and len(dataset.faults) == 1
    with pytest.raises(DatasetError, match="000002"):
        load(on_missing_image="skip", strict=True)
    for image in (images[0], *images[2:]):
        image.unlink()
    with pytest.raises(DatasetError, match="holds no image that exists: .*000001"):
        load(on_missing_image="skip")


def test_one_warning_a_kind(tmp_path, caplog):
    wrong = (Thing("cat", (10, 10, 90, 20)), Thing("cat", (20, 10, 90, 20)), Thing("dog", (30, 9, 5, 20)))
    write_devkit(tmp_path, [Picture(1, (40, 60), wrong)])
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset([voc_source(tmp_path)], CLASSES)
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "2 x box reaching out of the image, clipped",
        "1 x inverted box, dropped",
    ]
    assert len(dataset.faults) == 3 and len(dataset.records[0].labels) == 2
    with pytest.raises(DatasetError, match="strict"):
        load_dataset([voc_source(tmp_path)], CLASSES, strict=True)


def test_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("here/a", "datasets/a", "datasets/b", "mine/c"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.delenv("RESDET_DATASETS", raising=False)
    assert resolve_root(tmp_path / "mine") == tmp_path / "mine"
    assert resolve_root(Path("here/a")) == Path("here/a")
    assert resolve_root(Path("b")) == Path("datasets/b")
    with pytest.raises(DatasetError, match=r"at c nor at datasets/c; .*RESDET_DATASETS.*datasets/download\.py"):
        resolve_root(Path("c"))
    monkeypatch.setenv("RESDET_DATASETS", str(tmp_path / "mine"))
    assert resolve_root(Path("c")) == tmp_path / "mine/c"


def test_collecting_goes_on_after_errors():
    faults = Faults(collect=True, strict=True)
    for number in range(3):
        with faults.guard():
            faults.note(f"file {number}", "inverted box", "dropped")
    assert len(faults.errors) == 3 and not faults.notes
    with pytest.raises(KeyError), faults.guard():
        raise KeyError("a bug of ours is not collected")
