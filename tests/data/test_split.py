"""Which images are held out: shares, classes, groups, seeds, and the file that keeps the choice."""

import json
import random
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import Config, HeldOut, SplitName
from detection.config.files import parse_config
from detection.data.catalog import load_parts, load_split
from detection.data.held_out import groups_by_name, hold_out
from detection.data.settle import settle_config
from detection.data.split import SPLIT_FILE, ImageSplit, SplitImage, read_split, settings_of, split_images, write_split
from detection.errors import ConfigError, DatasetError
from detection.evaluation.split import load_evaluation_split
from tests.data.pictures import PICTURES, Picture, Thing, write_devkit


def images_of(labels: list[set[int]], groups: list[str] | None = None) -> list[SplitImage]:
    names = [f"image {number}" for number in range(len(labels))]
    return [SplitImage(*each) for each in zip(groups or names, map(frozenset, labels), strict=True)]


def test_each_class_is_divided_as_the_whole():
    """100 images of class 0, 10 of these have class 1 too; 20 of class 2; 10 without objects: a fifth of each."""
    images = images_of([{0, 1}] * 10 + [{0}] * 90 + [{2}] * 20 + [set()] * 10)
    held_out = [image for image, part in zip(images, split_images(images, (0.8, 0.2), 0), strict=True) if part == 1]
    assert Counter(image.labels for image in held_out) == {
        frozenset({0, 1}): 2,
        frozenset({0}): 18,
        frozenset({2}): 4,
        frozenset(): 2,
    }


def test_rare_classes_are_learnt_first():
    """Class k has k images: one is learnt, of two as well while there is room, of three one is held out."""
    images = images_of([{1}, {2}, {2}, {3}, {3}, {3}])
    chosen = split_images(images, (0.7, 0.3), 0)
    held_out = Counter(label for image, part in zip(images, chosen, strict=True) if part for label in image.labels)
    assert held_out[1] == 0 and held_out[3] == 1 and held_out.total() in (1, 2)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_data(data):
    """Groups stay whole, no part is empty, what is evaluated is learnt, and order does not matter."""
    count = data.draw(st.integers(2, 40))
    labels = data.draw(st.lists(st.frozensets(st.integers(0, 5), max_size=3), min_size=count, max_size=count))
    groups = [f"g{number}" for number in data.draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))]
    fractions = data.draw(st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.1, 0.9), (0.6, 0.2, 0.2)]))
    images = images_of(list(map(set, labels)), groups)
    if len(set(groups)) < len(fractions):
        with pytest.raises(DatasetError, match="groups that stay together"):
            split_images(images, fractions, 1)
        return
    parts = split_images(images, fractions, 1)
    assert set(parts) == set(range(len(fractions)))
    assert len({(image.group, part) for image, part in zip(images, parts, strict=True)}) == len(set(groups))
    order = data.draw(st.permutations(range(count)))
    assert split_images([images[place] for place in order], fractions, 1) == [parts[place] for place in order]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_shares_of_many_single_images(fraction):
    noise = random.Random(0)
    images = images_of([{label for label in range(8) if noise.random() < 2.0**-label} for _ in range(1000)])
    parts = split_images(images, (1 - fraction, fraction), 3)
    assert abs(sum(parts) - 1000 * fraction) <= 10
    for label in range(8):
        of_label = [part for image, part in zip(images, parts, strict=True) if label in image.labels]
        assert abs(sum(of_label) - len(of_label) * fraction) <= 3
    other = split_images(images, (1 - fraction, fraction), 4)
    assert other != parts and abs(sum(other) - 1000 * fraction) <= 10


def test_a_class_never_is_only_evaluated():
    images = images_of([{label} for label in range(50) for _ in range(2)])
    parts = split_images(images, (0.8, 0.2), 0)
    assert {label for image, part in zip(images, parts, strict=True) if part == 0 for label in image.labels} == set(range(50))
    assert sum(parts) == 10  # where all classes are rare, less is held out than asked for


def files(*names: str) -> list[PurePosixPath]:
    return [PurePosixPath(name) for name in names]


def test_groups_by_name():
    names = files("a/cow1_0001.jpg", "a/cow1_0002.jpg", "b/cow2-7.jpg", "b/other.png")
    assert groups_by_name(r"^(cow\d+)", names) == ["cow1", "cow1", "cow2", None]
    assert groups_by_name(r"cow\d_000", names) == ["cow1_000", "cow1_000", None, None]
    assert groups_by_name("^(.*)/", names) == ["a", "a", "b", "b"]  # with a slash: the path
    assert groups_by_name("cow1|(other)", names) == [None, None, None, "other"]
    with pytest.raises(ConfigError, match="matches none of 4 names, such as 'cow1_0001.jpg'"):
        groups_by_name("horse", names)
    for broken in ("(cow", "a{99999999999}", "\\"):
        with pytest.raises(ConfigError, match="is no regular expression"):
            groups_by_name(broken, names)
    with pytest.raises(ConfigError, match="write a simpler one"):
        groups_by_name("^(a+)+$", files("a" * 60 + "!"), timeout=0.5)


MANY = [*PICTURES, *(Picture(number, (40, 60), (Thing("cat", (1, 1, 20, 20)),)) for number in range(5, 12))]


def config_of(root: Path, **held_out: object) -> Config:
    source = {"format": "voc", "root": str(root), "year": "2007", "split": "trainval"}
    data = {"classes": ["cat", "dog"], "train": [source], "val": held_out}
    return parse_config(Config, {"data": data, "output_dir": str(root / "run")}, "mine.yaml")


def ids(config: Config, name: SplitName) -> list[Any]:
    return [record.image_id for record in load_split(config.data, name).records]


def test_a_share_of_the_training_images_is_held_out(tmp_path, caplog):
    folder = write_devkit(tmp_path, MANY)
    config = config_of(tmp_path, fraction=0.3)
    train, val = ids(config, "train"), ids(config, "val")
    assert sorted([*train, *val]) == [picture.stem for picture in MANY] and len(val) == 3
    listed = folder / "ImageSets/Main/trainval.txt"
    listed.write_text("\n".join(reversed(listed.read_text().split())))
    assert ids(config, "val") == val[::-1] and ids(config, "train") == train[::-1]
    assert [record.image_id for record in load_evaluation_split(config).records] == val[::-1]
    with pytest.raises(DatasetError, match=r"no images are named for test: set data\.test"):
        load_split(config.data, "test")


def test_a_file_keeps_the_split_though_the_data_grow(tmp_path, caplog):
    write_devkit(tmp_path, MANY[:-2])
    config = config_of(tmp_path, fraction=0.3)
    before = {name: [record.image_id for record in part.records] for name, part in load_parts(config.data).items()}
    split = ImageSplit.of({name: part.records for name, part in load_parts(config.data).items()}, {})
    held_out = config.data.held_out
    assert held_out is not None
    write_split(tmp_path / "run" / SPLIT_FILE, type(split)(split.parts, settings_of(held_out)))
    write_devkit(tmp_path, MANY)
    said: list[str] = []
    kept = settle_config(config, said.append)
    assert kept.data.held_out == HeldOut(fraction=0.3, file=tmp_path / "run" / SPLIT_FILE) and said == []
    caplog.clear()
    assert {name: ids(kept, name) for name in ("train", "val")} == before
    assert "2 images of the data are not in" in caplog.text
    other = config_of(tmp_path, fraction=0.4)
    assert settle_config(other) == other and "asks for another split" in caplog.text
    assert settle_config(kept, said.append) == kept


def test_a_split_of_three_parts(tmp_path, caplog):
    write_devkit(tmp_path, MANY)
    config = config_of(tmp_path, fraction=0.3)
    records = [record for part in load_parts(config.data).values() for record in part.records]
    assert config.data.held_out is not None
    parts = hold_out(records, config.data, config.data.held_out, 0.2)
    write_split(tmp_path / "split.json", ImageSplit.of(parts, {}))
    kept = config_of(tmp_path, file=str(tmp_path / "split.json"))
    assert {name: set(ids(kept, name)) for name in parts} == {
        name: {record.image_id for record in part} for name, part in parts.items()
    }
    assert [record.image_id for record in load_evaluation_split(kept).records] == ids(kept, "test")
    assert "the part 'val' of the split has no object of" in caplog.text  # two dogs are too few for three parts


def test_near_duplicates_stay_together(tmp_path):
    copies = [Picture(each.number, (80, 120), (Thing("cat", (10.0 * (each.number % 4), 5, 60, 70)),)) for each in MANY[:6]]
    folder = write_devkit(tmp_path, copies)
    for number in (1, 3):  # the next one is its copy
        (folder / f"JPEGImages/{number + 1:06d}.jpg").write_bytes((folder / f"JPEGImages/{number:06d}.jpg").read_bytes())
    config = config_of(tmp_path, fraction=0.5, group_by="near_duplicates")
    for seed in range(4):
        config = config_of(tmp_path, fraction=0.5, group_by="near_duplicates", seed=seed)
        val = ids(config, "val")
        assert ("000001" in val) == ("000002" in val) and ("000003" in val) == ("000004" in val) and 0 < len(val) < 6


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "is no split"),
        ({"train": [1]}, "is no split"),
        ({"train": [1], "val": []}, "'val' is empty"),
        ({"train": [1], "val": 2}, "must be a list"),
        ({"train": [1], "val": [True]}, "a whole number or a text, found True"),
        ({"train": [1, 2], "val": [2]}, "names the image 2 twice"),
        ({"train": [1], "val": ["1"]}, None),
        ({"train": [1], "val": [2], "test": []}, None),
    ],
)
def test_files_of_splits(tmp_path, content, fault):
    file = tmp_path / "split.json"
    file.write_text(json.dumps(content))
    if fault is None:
        assert list(read_split(file).parts) == ["train", "val"]
        return
    with pytest.raises(DatasetError, match=fault):
        read_split(file)


def test_a_split_of_other_data_is_refused(tmp_path):
    write_devkit(tmp_path)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["x"], "val": ["000001"]}))
    with pytest.raises(DatasetError, match=r"no image of 'train' in .*split\.json is in the data"):
        ids(config_of(tmp_path, file=str(tmp_path / "split.json")), "val")
