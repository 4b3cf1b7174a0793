"""A score threshold for each class: what a config and a file may hold, and names that are no class."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.config import Config, dump_config, load_config, override_config, parse_config, read_thresholds
from detection.config import TestConfig as InferenceConfig
from detection.config.thresholds import thresholds_of_classes
from detection.config.yaml_text import dump_yaml
from detection.data.settle import settle_config
from detection.errors import ConfigError
from detection.evaluation.thresholds import Operation, Thresholds, write_thresholds

HOSTILE = (
    "1e5",
    "yes",
    "a: b",
    "null",
    "~",
    "<<",
    "010",
    "2026-01-01",
    "- x",
    "#",
    "{x}",
    "'",
    '"',
    "[key]",
    "dict[x]",
    "家",
    "a.b",
)


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def message_of(caught: pytest.ExceptionInfo[ConfigError]) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and len(text) < 700
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0.05),
        ("score_threshold: 0.3", 0.3),
        ("score_threshold: 1", 1.0),
        ("score_threshold: {cat: 0.4, dog: 0.62}", {"cat": 0.4, "dog": 0.62}),
        ("score_threshold: {dog: 0}", {"dog": 0.0}),
        ("score_threshold: {}", {}),
        ("score_threshold: &all {cat: 1e-3}", {"cat": 0.001}),
    ],
)
def test_a_number_or_a_mapping(tmp_path, text, expected):
    config = load_config(write(tmp_path, f"data: {{classes: [cat, dog]}}\ntest: {{{text}}}"))
    assert config.test.score_threshold == expected and config.test.model_copy() == config.test
    assert load_config(write(tmp_path, dump_config(config), "again.yaml")) == config
    assert (
        load_config(write(tmp_path, "data: {classes: [cat, dog]}"), [f"test.{text.replace(': ', '=', 1)}"] if text else [])
        == config
    )


BAD: dict[str, Any] = {
    "1.5": 1.5, "-0.1": -0.1, "nan": float("nan"), "inf": float("inf"), "true": True, "null": None, "'0.4'": "0.4",
    "[0.4]": [0.4], "{'a': 0.4}": {"a": 0.4}, "{}": {},
}  # fmt: skip


@pytest.mark.parametrize("shown", BAD)
def test_what_is_no_threshold_is_refused_with_key_and_value(shown, tmp_path):
    with pytest.raises(ConfigError) as caught:
        parse_config(Config, {"data": {"classes": ["cat"]}, "test": {"score_threshold": {"cat": BAD[shown]}}}, "x.yaml")
    assert message_of(caught).startswith("'test.score_threshold.cat' in x.yaml must be a number from 0 to 1, got " + shown)
    if shown in ("{}", "{'a': 0.4}"):
        return
    with pytest.raises(ConfigError) as caught:
        parse_config(Config, {"test": {"score_threshold": BAD[shown]}}, "x.yaml")
    assert message_of(caught).startswith("'test.score_threshold' in x.yaml must be a number from 0 to 1 or a mapping of ")


@pytest.mark.parametrize(("name", "hint"), [("cta", "did you mean 'cat'?"), ("zzz", "the classes are 'cat', 'dog'")])
def test_a_name_that_is_no_class_is_refused_where_the_classes_are_known(tmp_path, name, hint):
    path = write(tmp_path, f"data: {{classes: [cat, dog]}}\ntest: {{score_threshold: {{cat: 0.1, {name}: 0.4}}}}")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message_of(caught) == f"{path}: test.score_threshold names '{name}', which is no class; {hint}"
    known = Config.model_validate({"data": {"classes": ["cat", "dog"]}})
    with pytest.raises(ConfigError, match=f"test.score_threshold names '{name}'"):
        override_config(known, [f"test.score_threshold={{{name}: 0.4}}"])


def test_names_that_a_file_has_are_compared_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "cat\ndog\n", "names.txt")
    values = {"data": {"classes_file": "names.txt"}, "test": {"score_threshold": {"dgo": 0.4}}}
    config = parse_config(Config, values, "x.yaml")
    with pytest.raises(ConfigError, match="names 'dgo', which is no class; did you mean 'dog'"):
        settle_config(config)
    assert settle_config(override_config(config, ["test.score_threshold={dog: 0.4}"])).data.class_names == ("cat", "dog")


def test_a_mapping_replaces_the_one_before_it(tmp_path):
    write(tmp_path, "data: {classes: [cat, dog]}\ntest: {score_threshold: {cat: 0.4}, nms_threshold: 0.7}", "base.yaml")
    path = write(tmp_path, "base: base.yaml\ntest: {score_threshold: {dog: 0.6}}")
    config = load_config(path)
    assert config.test.score_threshold == {"dog": 0.6} and config.test.nms_threshold == 0.7
    assert load_config(path, ["test.score_threshold={cat: 0.1}"]).test.score_threshold == {"cat": 0.1}
    assert load_config(path, ["test.score_threshold=0.2"]).test.score_threshold == 0.2
    assert load_config(path, ["test.score_threshold.cat=0.1"]).test.score_threshold == {"dog": 0.6, "cat": 0.1}
    assert load_config(write(tmp_path, "base: base.yaml\ntest: {score_threshold: 0.6}")).test.score_threshold == 0.6
    assert load_config(write(tmp_path, "base: base.yaml\ntest: {flip: true}")).test.score_threshold == {"cat": 0.4}


def test_settings_can_be_told_apart_and_counted():
    first, again, other = (InferenceConfig(score_threshold=value) for value in ({"cat": 0.4}, {"cat": 0.4}, {"cat": 0.5}))
    assert first == again != other and len({first, again, other, InferenceConfig(), InferenceConfig(score_threshold=0.3)}) == 4


def test_by_class():
    names = ("cat", "dog", "cow")
    assert thresholds_of_classes(0.3, names) == (0.3,) * 3
    assert thresholds_of_classes({"cow": 0.9, "cat": 0.0}, names) == (0.0, 0.05, 0.9)
    assert thresholds_of_classes({"cow": 0.9}, names, default=0.5) == (0.5, 0.5, 0.9)
    assert thresholds_of_classes({}, ()) == ()


fractions = st.floats(0, 1)
names = st.sampled_from(HOSTILE) | st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20
)


@given(st.dictionaries(names, fractions, min_size=1, max_size=8))
@settings(max_examples=25)
def test_names_that_mean_something_to_yaml_come_back(tmp_path_factory, thresholds):
    folder = tmp_path_factory.mktemp("thresholds")
    assert read_thresholds(write(folder, dump_yaml(thresholds), "thresholds.yaml")) == thresholds
    config = Config.model_validate({"data": {"classes": list(thresholds)}, "test": {"score_threshold": thresholds}})
    assert load_config(write(folder, dump_config(config))) == config == override_config(config, [])


def test_the_thresholds_of_a_report_are_such_a_file(tmp_path):
    numbers = [1e-7, 0.4, 1.0, 0.0, 0.1 + 0.2]
    operations: list[Operation | None] = [Operation(number, 1, 1, 1) for number in numbers]
    names = HOSTILE[: len(numbers) + 1]
    write_thresholds(tmp_path / "thresholds.yaml", Thresholds(names, [*operations, None], operations[1], "best F1"), "best.pt")
    assert read_thresholds(tmp_path / "thresholds.yaml") == dict(zip(names, [*numbers, 0.4], strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "t.yaml must hold names of classes and their thresholds, such as cat: 0.4, not None"),
        ("0.5", "t.yaml must hold names of classes and their thresholds, such as cat: 0.4, not 0.5"),
        ("[cat, 0.5]", "must hold names of classes"),
        ("cat: 0.4\ncat: 0.5", "t.yaml, line 2: the key 'cat' is given twice, first in line 1, again in line 2: keep one"),
        ("cat: 1.5", "'cat' in t.yaml must be a number from 0 to 1, got 1.5"),
        ("cat: .nan", "'cat' in t.yaml must be a number from 0 to 1, got nan"),
        ("cat: yes", "'cat' in t.yaml must be a number from 0 to 1, got true"),
        ("cat: 0.4\ndog: {a: 1}", "'dog' in t.yaml must be a number from 0 to 1, got {'a': 1}"),
        ("cat:", "'cat' in t.yaml must be a number from 0 to 1, got null"),
        ("1e5: 0.4", "a key must be text, got '1e5': put it in quotes"),
        ("? [a]\n: 0.4", "a key must be text"),
        ("'': 0.4", "the key '' in t.yaml must be text in one line"),
        ('"a\\nb": 0.4', "must be text in one line"),
        ("cat: 0.4\n---\ndog: 0.4", "a second document"),
        ("cat: !!python/object:os.system 1", "the tag "),
        ("[" * 2000, "t.yaml"),
        ("x" * 3_000_000, "too large"),
    ],
)
def test_a_file_of_thresholds_holds_nothing_else(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, text, "t.yaml")
    with pytest.raises(ConfigError) as caught:
        read_thresholds("t.yaml")
    assert words in message_of(caught) and "t.yaml" in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"cat: \xff")
    for name, words in (
        ("absent.yaml", "No such file"),
        (".", "it is a folder; name a file"),
        ("bytes.yaml", "not text in UTF-8"),
    ):
        with pytest.raises(ConfigError, match=f"cannot read thresholds .*{words}"):
            read_thresholds(tmp_path / name)
