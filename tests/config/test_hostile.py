"""Every key with every nasty value: in its declared range, or one line that names it. And YAML's traps."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import Self

from detection.config import (
    ClassifierConfig,
    Config,
    Section,
    dump_config,
    list_configs,
    load_classifier_config,
    load_config,
    load_loc_config,
    parse_config,
)
from detection.config.explain import known_keys
from detection.errors import ConfigError

ITS_OWN_WORDS = ("input should", "valid integer", "discriminator", "literal[", "tuple[", "pydantic", "constructor", "type=")


class Circle(dict[str, Any]):
    """A mapping that contains itself."""

    @classmethod
    def make(cls) -> Self:
        circle = cls()
        circle["again"] = circle
        return circle


def doubled(levels: int) -> list[Any]:
    """A list that has 2^levels items when it is written out."""
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


NASTY = {
    "none": None, "true": True, "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "-1": -1, "-0.5": -0.5,
    "0": 0, "1e300": 1e300, "10^400": 10**400, "10^5000": 10**5000, "2^70": 2**70, "10^9": 10**9, "1.5": 1.5, "''": "",
    "blank": " ", "'5'": "5", "nul": "a\0b", "ansi": "\x1b[31m", "half": "\ud800", "megabyte": "x" * 10**6, "[]": [], "{}": {},
    "set": {1, 2}, "bytes": b"x", "object": object(), "type": int, "circle": Circle.make(), "doubled": doubled(60),
    "deep": nested(10**5), "number key": {1: 2}, "many": [0] * 10**5,
    "list of none": [None], "of -1": [-1], "of nan": [float("nan")],
    "descending": [0.5, 0.1], "twice": [3, 3], "of texts": ["a", "a"], "of mappings": [{"format": "xml"}], "no format": [{}],
}  # fmt: skip


def values_with(key: str, value: object) -> dict[str, Any]:
    """A mapping with one dotted key."""
    first, _, rest = key.partition(".")
    return {first: values_with(rest, value) if rest else value}


def read_back(config: Section, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def keys_of(schema: type[BaseModel]) -> list[str]:
    """All keys but those of the items of lists, which have a table below."""
    return [key for key in known_keys(schema) if schema is ClassifierConfig or not re.match(r"data\.(train|val|test)\.", key)]


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("schema", [Config, ClassifierConfig])
def test_every_key_takes_what_it_declares_and_names_itself_otherwise(schema, name):
    value = NASTY[name]
    for key in keys_of(schema):
        try:
            config = parse_config(schema, values_with(key, value), "a.yaml")
        except ConfigError as error:
            message = str(error)
            assert "\n" not in message and message.isprintable() and len(message) < 400, (key, message)
            assert not [word for word in ITS_OWN_WORDS if word in message.lower()], (key, message)
            assert key in message or "contains itself" in message or "must be text" in message, (key, message)
        else:
            assert not isinstance(value, float) or math.isfinite(value), key
            assert read_back(config, key) in (value, _tuple(value)) or value == {}, (key, value)
            again = parse_config(schema, config.model_dump(mode="json"), "again")
            assert again == config, key


def _tuple(value: Any) -> Any:
    """What the schema makes of a value: tuples of lists, paths and years of texts."""
    return tuple(value) if isinstance(value, list) else Path(value) if isinstance(value, str) else value


@pytest.fixture
def refused(tmp_path) -> Any:
    """refused(text, overrides): the message of the ConfigError that a file of this text is."""

    def read(text: str | bytes, overrides: tuple[str, ...] = ()) -> str:
        path = tmp_path / "x.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as error:
            load_config(path, overrides)
        message = str(error.value).replace(str(tmp_path), "")
        assert "\n" not in message and message.isprintable() and len(message) < 400
        assert not [word for word in ITS_OWN_WORDS if word in message.lower()], message
        return message

    return read


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {steps: 5}\nrpn: {}\ntrain: {seed: 1}", "/x.yaml, line 3: the key 'train' is given twice, first in line 1"),
        ("train:\n  steps: 1\n  steps: 1", "line 3: the key 'steps' is given twice"),
        ("train: {steps: 010}", "'train.steps' in /x.yaml must be a whole number from 1 to 1000000000, got '010'; write"),
        ("train: {steps: 1:30:00}", "got '1:30:00'"),
        ("train: {steps: 0x10}", "got '0x10'"),
        ("train: {steps: 1_0}", "got '1_0'"),
        ("train: {steps: true}", "got true"),
        ("train: {steps: 2026-01-01}", "got '2026-01-01'"),
        ("train: {steps: '500'}", "got '500'; write a plain decimal number, without quotes"),
        ("test: {flip: 1}", "'test.flip' in /x.yaml must be true or false, got 1"),
        ("data: {classes: [yes, no]}", "got true; YAML reads yes, no, on and off as true and false: put the word in quotes"),
        ("data: {classes: [a, 5]}", "must be text in one line of at most 200 characters, got 5; put it in quotes"),
        ("data: {classes: imagenet}", "'data.classes' in /x.yaml must be 'voc', 'coco', 'ilsvrc_det' or 'auto' or a list"),
        ("data: {classes: [\"caf\\u00e9\", \"cafe\\u0301\"]}", "comes twice"),
        ("data: {classes: [a, ' a']}", "comes twice"),
        ("data: {classes: []}", "name at least one class"),
        ("data: {train: [{split: a}]}", "missing key 'data.train.0.format' in /x.yaml: it must be 'voc', 'coco', 'ilsvrc_det'"),
        ("data: {train: [{format: coco, images: a, annotations: a, root: 5}]}", "'data.train.0.root' in /x.yaml must be"),
        ("data: {train: [{format: voc, split: a, coco: 3}]}", "unknown key 'data.train.0.coco'"),
        ("test: {refine_scores: [0.9, 0.1]}", "test.refine_scores is [0.9, 0.1], which ends below its beginning"),
        ("roi: {refined_iou: 0.4}", "roi.refined_iou is 0.4, below roi.positive_iou, which is 0.5"),
        ("roi: {negative_iou: [0.5, 0.1]}", "roi.negative_iou is [0.5, 0.1], which ends below its beginning"),
        ("roi: {negative_iou: [0.1]}", "'roi.negative_iou' in /x.yaml must be a list of 2 items, each a number from 0 to 1"),
        ("roi: {negative_iou: [0, 0.9]}", "above roi.positive_iou"),
        ("rpn: {negative_iou: 0.8}", "above rpn.positive_iou"),
        ("rpn: {pre_nms_test: 100}", "rpn.post_nms_test is 300, above rpn.pre_nms_test"),
        ("rpn: {anchor_sizes: [8, 8]}", "lists a value twice"),
        (f"rpn: {{anchor_sizes: {list(range(1, 101))}, anchor_ratios: {[i / 10 for i in range(1, 101)]}}}", "10000 anchors"),
        ("test: {longer_side: 300}", "test.shorter_side asks for a shorter side of 600, but test.longer_side is 300"),
        ("data: {longer_side: 300}", "data.shorter_sides asks for a shorter side of 600"),
        (f"test: {{scales: {list(range(1, 2001))}}}", "a list of at most 100 items"),
        ("train: {lr_drops: [5, 3, 3]}", "train.lr_drops must ascend, got [5, 3, 3]: write [3, 5]"),
        ("train: {ema_decay: 1}", "must be a number from 0 and below 1, got 1"),
        ("train: {learning_rate: .inf}", "must be a number above 0 and up to 1000, got inf"),
        ("train: {learning_rate: 1e400}", "must be a number above 0 and up to 1000, got inf"),
        ("train: {steps: -.inf}", "must be a whole number from 1 to 1000000000, got -inf"),
        ("data: {train: [{format: }]}", "'openimages' or 'csv', got null"),
        ("data: {classes: 'cat,dog'}", "a list is written [a, b]"),
        ("data: {root: photos}", "/x.yaml is a classifier's experiment (pretrain, eval-classifier), and"),
        ("train: {learning_rate: 1e300}", "must be a number above 0 and up to 1000, got 1e+300"),
        (f"train: {{seed: {'1' * 5000}}}", "a number of 5000 digits"),
        ("train: {seed: 1180591620717411303424}", "from 0 to 9223372036854775807, got 1180591620717411303424"),
        ("data: {augmentations: [{Blur: {p: .nan}}]}", "'data.augmentations.0.Blur.p' in /x.yaml must be a finite number"),
        (LAUGHS, "more than 50000 values, with those that aliases (*) stand for"),
        ("data: {augmentations: [{Blur: &x {a: *x}}]}", "an alias (*) inside of what it stands for"),
        ("[" * 10000, "nested more than 32 levels deep"),
        ("{a: " * 10000, "nested more than 32 levels deep"),
        ("output_dir: !!python/object/apply:os.system [ls]", "the tag '!!python/object/apply:os.system' does not fit here"),
        ("output_dir: !!binary aGVsbG8=", "the tag '!!binary'"),
        ("train: !!set {a}", "the tag '!!set'"),
        ("train: {steps: !!int abc}", "the tag '!!int'"),
        ("a: b\n---\nc: d", "line 2, column 1: a second document ('---')"),
        ("train:\n\tsteps: 5", "line 2, column 1: a tab: indent with spaces"),
        ("train: {steps: 5", "a mapping in { } lacks a comma or its end"),
        ("a: b: c", "a ':' where none may stand"),
        ("a: 'x", "a quote is not closed"),
        ("a: \"\\UFFFFFFFF\"", "out of range"),
        ("a: *b", "that no anchor (&) above defines"),
        ("a: &x 1\nb: &x 2", "an anchor (&) is defined twice"),
        ("a: @b", "must be put in quotes"),
        ("a\0b", "a control character"),
        ('output_dir: "a\\0b"', "'output_dir' in /x.yaml must be a path, got 'a\\x00b'"),
        ('output_dir: "\\ud800"', "must be a path, got '\\ud800'"),
        ("2007: a", "a key must be text, got '2007'"),
        ("yes: a", "a key must be text, got 'yes'"),
        ("? [a]\n: b", "a key must be text, got a list or a mapping"),
        ("train: {<<: 5}", "'<<' takes a mapping"),
        ("train:", "'train' in /x.yaml must be a mapping of keys to values, got null"),
        (b"\xff\xfe", "is not text in UTF-8 (byte 0)"),
        ("output_dir: " + "x" * 5000, "'output_dir' in /x.yaml is a text of more than 4096 characters"),
        ("x" * 2**21, "is too large for a config"),
        ("base: x.yaml", "'base' leads in a circle"),
        ("base: sub/../x.yaml", "'base' leads in a circle"),
        ("base: .", "it is a folder; `resdet new`"),
        ("base: ''", "'base' in /x.yaml must be the name of a config"),
        ('base: "a\\0"', "embedded null byte"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)  # fmt: skip
def test_what_a_file_may_not_hold_is_one_line_in_our_words(refused, tmp_path, text, words):
    (tmp_path / "sub").mkdir()
    assert words in refused(text)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("=5", "must look like dotted.key=value"),
        ("train.=5", "must look like dotted.key=value"),
        (".steps=5", "must look like dotted.key=value"),
        ("train..steps=5", "must look like dotted.key=value"),
        ("data.train.²=1", "'²' must be a list index below 1"),
        ("data.train.-1.root=x", "'-1' must be a list index below 1"),
        ("data.train.1.root=x", "'1' must be a list index below 1"),
        ("data.val.0.root=x", "there is no list for '0' to step into: give the whole list, data.val=[...]"),
        ("train.steps=", "must be a whole number from 1 to 1000000000, got null"),
        ("train.steps=" + "[" * 1000, "nested more than 32 levels deep"),
        ("train.steps=1\nseed: 3", "is not valid YAML"),
        ("train.steps=1" + "0" * 5000, "a number of 5001 digits"),
        ("x" * 10**5 + "=3", "unknown key 'xxx"),
        ("output_dir.x=5", "'output_dir' is a value, not a section"),
        ("base=other.yaml", "unknown key 'base'"),
    ],
    ids=lambda value: value[:30],
)
def test_what_an_override_may_not_be(refused, override, words):
    assert words in refused("output_dir: here\ndata: {train: [{format: voc, split: a}]}", (override,))


def test_of_two_overrides_for_one_key_the_last_counts(tmp_path):
    (tmp_path / "x.yaml").write_text("")
    assert load_config(tmp_path / "x.yaml", ["train.steps=5", "train.steps=7"]).train.steps == 7


@pytest.mark.parametrize("name", ["pipe", "folder", "nowhere", "a\0b", "/dev/zero"])
def test_only_a_regular_file_is_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(ConfigError, match="cannot read config"):
            load_config(path)


def texts() -> Iterator[str]:
    """Texts that YAML reads as something else without quotes."""
    yield from ("010", "1:30:00", "2026-01-01", "1e5", "1_000", "yes", "null", "~", "<<", "=", ".inf", "0x10", "on", "5", "1.5")


def test_texts_stay_texts_and_are_written_so_that_they_do(tmp_path):
    names = tuple(texts())
    quoted = ", ".join(f"'{name}'" for name in names)
    path = tmp_path / "x.yaml"
    path.write_bytes(f"\ufeffdata: {{classes: [{quoted}, Vögel, 猫]}}\noutput_dir: läufe".encode())
    config = load_config(path)
    assert config.data.class_names == (*names, "Vögel", "猫") and config.output_dir == Path("läufe")
    path.write_text(dump_config(config), encoding="ascii")
    assert load_config(path) == config
    path.write_text("data: {classes: [010, 1:30, 2026-01-01, 0x10]}")
    assert load_config(path).data.class_names == ("010", "1:30", "2026-01-01", "0x10")


def test_anchors_and_merge_keys_are_ordinary_yaml(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "data:\n  train: [&voc {format: voc, year: 2007, split: train}]\n  val: [{<<: *voc, split: val}]\n"
        "train: {<<: [{steps: 5, seed: 1}, {seed: 2, log_every: 3}], seed: 4, lr_drops: [1_000]}"
    )
    config = load_config(path)
    assert [(source.year, source.split) for source in config.data.val] == [("2007", "val")]  # type: ignore[union-attr]
    assert (config.train.steps, config.train.seed, config.train.log_every, config.train.lr_drops) == (5, 4, 3, (1000,))


def fits(load: Callable[[str], object], name: str) -> bool:
    try:
        load(name)
    except ConfigError:
        return False
    return True


def test_every_packaged_config_is_of_one_kind():
    kinds = (load_config, load_classifier_config, load_loc_config)
    assert {name: sum(fits(load, name) for load in kinds) for name in list_configs()} == dict.fromkeys(list_configs(), 1)


def test_an_unknown_key_is_not_suggested_for_itself(tmp_path):
    (tmp_path / "x.yaml").write_text("data: {train: [{format: coco, year: 2007, annotations: a.json, images: photos}]}")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "x.yaml")
    assert "unknown key 'data.train.0.year'" in str(caught.value) and "'data.train.0.year'?" not in str(caught.value)


def test_keys_of_an_override_are_text_that_can_be_written(tmp_path):
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"the key '.udcff' in .* must be text"):
        load_config(tmp_path / "x.yaml", ["\udcff=1"])
