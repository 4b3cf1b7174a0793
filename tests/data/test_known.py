"""Classes that annotations do not know: from a source's `known_classes` to what a detector is trained on."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detection.config import Config, DataConfig
from detection.config.files import parse_config
from detection.data.augmentations import build_augmentation
from detection.data.catalog import load_dataset, load_split
from detection.data.check import check_data, data_warnings
from detection.data.classes import ClassMap
from detection.data.convert import describe_losses
from detection.data.faults import Faults
from detection.data.known import describe_known, with_known_classes
from detection.data.loader import train_loader
from detection.data.packing import PackedRecords
from detection.data.settle import settle_config
from detection.data.tiles import cut_record
from detection.data.transforms import make_target, prepare
from detection.errors import ConfigError
from detection.structures import Batch, Record
from tests.data.pictures import CLASSES, coco_source, voc_source, write_coco, write_devkit
from tests.evaluation.scenes import make_record

VOC: dict[str, Any] = {"format": "voc", "year": "2007", "split": "trainval"}
COCO: dict[str, Any] = {"format": "coco", "annotations": "instances.json", "images": "images"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_devkit(tmp_path)
    write_coco(tmp_path)
    return tmp_path


def data_of(folder: Path, *sources: dict[str, Any], **data: object) -> DataConfig:
    train = [{**source, "root": str(folder)} for source in sources]
    values = {"classes": list(CLASSES), "workers": 0, "shorter_sides": [24], "longer_side": 64, "train": train, **data}
    return parse_config(Config, {"data": values}, "mine.yaml").data


def known_of(records: list[Record]) -> list[list[bool] | None]:
    return [None if record.known is None else record.known.tolist() for record in records]


def test_the_images_of_a_source_share_what_it_knows(folder):
    records = load_split(data_of(folder, VOC | {"known_classes": ["dog"]}, COCO), "train").records
    assert known_of(records) == [[False, True]] * 4 + [None] * 4
    assert len({id(record.known) for record in records[:4]}) == 1
    assert records[0].labels.tolist() == [0, 1], "an object of a class that is not listed stays"
    listed = load_split(data_of(folder, VOC | {"known_classes": ["dog", "cat"]}), "train").records
    assert known_of(listed) == [None] * 4, "all that there are"


def test_objects_of_other_classes_are_told_once(folder, caplog):
    with caplog.at_level(logging.WARNING):
        load_split(data_of(folder, VOC | {"known_classes": ["dog"]}, COCO | {"known_classes": ["cat", "dog"]}), "train")
    (line,) = [record.getMessage() for record in caplog.records if "known_classes" in record.getMessage()]
    assert line.startswith(
        f"split 'trainval' of {folder} has objects of classes that are not among its known_classes: cat (3);"
    )
    caplog.clear()
    load_split(data_of(folder, VOC | {"known_classes": ["cat", "dog"]}), "train")
    assert not [record for record in caplog.records if "known_classes" in record.getMessage()]


def test_what_the_reader_knows_and_what_the_source_says_both_hold():
    own = torch.tensor([True, True, False])
    records = [make_record(1), replace(make_record(2), known=own), replace(make_record(3), known=own)]
    names = ClassMap(("a", "b", "c"))
    found = with_known_classes(records, ["a", "c"], "here", names, Faults())
    assert known_of(found) == [[True, False, True], [True, False, False], [True, False, False]]
    assert found[1].known is found[2].known and own.tolist() == [True, True, False]
    assert with_known_classes(records, None, "here", names, Faults()) is records


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_name_that_is_no_class_is_refused(folder, split):
    sources = [VOC, VOC | {"known_classes": ["cat", "dgo"]}]
    values = {"classes": list(CLASSES), split: [{**source, "root": str(folder)} for source in sources]}
    with pytest.raises(ConfigError) as caught:
        parse_config(Config, {"data": values}, "mine.yaml")
    assert str(caught.value) == (f"mine.yaml: data.{split}.1.known_classes names 'dgo', which is no class; did you mean 'dog'?")


def test_names_are_those_after_renaming(folder):
    source = VOC | {"known_classes": ["hound"]}
    data = data_of(folder, source, classes=["cat", "hound"], rename={"dog": "hound"})
    assert known_of(load_split(data, "train").records) == [[False, True]] * 4
    with pytest.raises(ConfigError, match=r"known_classes names 'dog', which is no class; the classes are 'cat', 'hound'"):
        data_of(folder, VOC | {"known_classes": ["dog"]}, classes=["cat", "hound"], rename={"dog": "hound"})


def test_an_empty_list_is_refused(folder):
    with pytest.raises(ConfigError, match=r"data\.train\.0\.known_classes"):
        data_of(folder, VOC | {"known_classes": []})


def test_a_program_s_own_sources_are_checked_too(folder):
    source = voc_source(folder).model_copy(update={"known_classes": ("cow",)})
    with pytest.raises(ConfigError, match=r"known_classes of split 'trainval' of .* names 'cow', which is no class"):
        load_dataset([source], CLASSES)
    ours = coco_source(folder).model_copy(update={"known_classes": ("cat",)})
    assert known_of(load_dataset([ours], CLASSES).records) == [[True, False]] * 4


def test_classes_that_the_data_tell(folder):
    def settled(known: list[str]) -> DataConfig:
        return settle_config(Config(data=data_of(folder, VOC | {"known_classes": known}, classes="auto"))).data

    assert known_of(load_split(settled(["cat"]), "train").records) == [[True, False]] * 4
    with pytest.raises(ConfigError, match=r"^data\.train\.0\.known_classes names 'cta', which is no class; did you mean 'cat'"):
        settled(["cta"])


def test_a_folder_that_is_recognised_keeps_what_it_knows(tmp_path):
    write_devkit(tmp_path)
    auto = {"format": "auto", "known_classes": ["dog"]}
    data = settle_config(Config(data=data_of(tmp_path, auto, classes="auto"))).data
    assert data.train[0].format == "voc" and data.train[0].known_classes == ("dog",)


def test_targets_know_it_through_augmentation_and_resize(folder):
    (record, *_) = load_split(data_of(folder, VOC | {"known_classes": ["dog"]}), "train").records
    image = np.zeros((*record.size_hw, 3), np.uint8)
    for augmentation in ([], [{"HorizontalFlip": {"p": 1.0}}]):
        _, target = prepare(image, make_target(record), build_augmentation(augmentation), (24,), 64, seed=1)
        assert target.known is record.known
    moved = target.to("meta").known
    assert moved is not None and moved.device.type == "meta" and moved.dtype == torch.bool
    assert make_target(record, partial_labels=False).known is None


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_it(folder, workers):
    sources = (VOC | {"known_classes": ["dog"]}, COCO)
    data = data_of(folder, *sources, workers=workers)

    def known_by_file(data: DataConfig) -> dict[str, object]:
        config = Config(data=data)
        stream = train_loader(load_split(data, "train"), config)
        batches = [next(stream) for _ in range(16)]
        stream.close()
        return {
            file: None if target.known is None else target.known.tolist()
            for batch in batches
            for file, target in zip(batch.files, batch.targets, strict=True)
        }

    found = known_by_file(data)
    assert {str(known) for file, known in found.items() if "VOC2007" in file} == {"[False, True]"}
    assert {str(known) for file, known in found.items() if "VOC2007" not in file} == {"None"}
    assert set(known_by_file(data.model_copy(update={"partial_labels": False})).values()) == {None}


def test_a_batch_keeps_it_on_another_device(folder):
    (record, *_) = load_split(data_of(folder, VOC | {"known_classes": ["dog"]}), "train").records
    batch = Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [(8, 8)], [make_target(record)]).to("meta")
    assert batch.targets[0].known is not None and batch.targets[0].known.device.type == "meta"


def test_packed_masks_are_stored_once():
    masks = [None, torch.tensor([True, False]), torch.tensor([True, False]), torch.tensor([False, True]), None]
    records = [replace(make_record(n, [(1, 2, 3, 4)] * n), known=known) for n, known in enumerate(masks)]
    packed = PackedRecords.pack(records)
    assert packed.known.tolist() == [[True, False], [False, True]] and packed.known_of.tolist() == [-1, 0, 0, 1, -1]
    for index, expected in enumerate(masks):
        known = packed.target(index).known
        assert known is None if expected is None else known is not None and torch.equal(known, expected)
    known = packed.target(1).known
    assert known is not None
    known[0] = False  # a copy, not the memory of all workers
    assert packed.known[0, 0]
    literal = PackedRecords.pack(records, partial_labels=False)
    assert len(literal.known) == 0 and all(literal.target(index).known is None for index in range(5))
    assert len(PackedRecords.pack([])) == 0


def test_tiles_know_what_their_image_knows():
    known = torch.tensor([True, False])
    record = replace(make_record("a", [(10, 10, 60, 60)]), known=known)
    tiles = cut_record(record, DataConfig(tile=100))
    assert len(tiles) > 2 and all(tile.known is known for tile in tiles)


def test_held_out_images_keep_it(folder):
    data = data_of(folder, VOC | {"known_classes": ["dog"]}, val={"fraction": 0.5})
    for part in ("train", "val"):
        assert set(map(str, known_of(load_split(data, part).records))) == {"[False, True]"}


def test_check_dataset_tells_it(folder):
    splits = check_data(data_of(folder, VOC | {"known_classes": ["dog"]}, COCO))
    assert "train: 4 images know 1 of 2 classes; objects of the other classes may be there, not annotated" in data_warnings(
        splits, CLASSES
    )


def test_how_many_images_know_how_many_classes():
    assert describe_known([]) is None and describe_known([make_record(1)]) is None
    knowing = [torch.arange(6) < count for count in (1, 2, 2, 3, 3, 3, 4, 0)]
    told = describe_known([replace(make_record(n), known=known) for n, known in enumerate(knowing)])
    assert told is not None and told.startswith(
        "3 images know 3 of 6 classes, 2 images know 2 of 6 classes, 1 images know 1 of 6 classes, 2 another number; "
    )


def test_a_converted_data_set_cannot_say_it(folder):
    dataset = load_split(data_of(folder, VOC | {"known_classes": ["dog"]}), "train")
    (note,) = [line for line in describe_losses({"train": dataset, "val": dataset}, "coco") if "know only" in line]
    assert note.startswith("8 images know only some of the classes")
