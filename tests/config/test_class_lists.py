"""The class lists of the benchmarks."""

import pytest

from detection.config.class_lists import COCO_CLASSES, VOC_CLASSES, canonical_name, check_class_names, resolve_classes
from detection.errors import ConfigError


def test_class_lists():
    assert len(VOC_CLASSES) == 20 and len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert resolve_classes("voc") == VOC_CLASSES and resolve_classes(["a", "b"]) == ("a", "b")
    with pytest.raises(ConfigError, match="'imagenet'"):
        resolve_classes("imagenet")


def test_both_benchmarks_name_their_twenty_common_classes_alike():
    assert {canonical_name(name) for name in COCO_CLASSES} >= set(VOC_CLASSES)
    assert canonical_name("tv") == "tvmonitor" and canonical_name("anything else") == "anything else"


@pytest.mark.parametrize(
    "name",
    ["", " ", "\t", "\u3000", "a\nb", "a\0", "\x1b[31mred", "\x9b2J", "half \ud800", "\u202ebackwards", "a\u2028b", "x" * 201,
     7, None, True, 1.5, b"cat", ["cat"], 10**5000],
    ids=lambda name: repr(name)[:20] if not isinstance(name, int) else type(name).__name__,
)  # fmt: skip
def test_what_cannot_be_a_class_name_is_refused_in_one_line(name):
    with pytest.raises(ConfigError, match="class name 2 ") as error:
        check_class_names(["cat", name])
    assert str(error.value).isprintable() and len(str(error.value)) < 250
    with pytest.raises(ConfigError, match="class name 2 "):
        resolve_classes(["cat", name])


@pytest.mark.parametrize(
    "name",
    ["dent[large]", "[/x]", "a$b$", "100%", "Vögel", "猫", "قطة", "می‌خواهم", "क्‍ष", "👩‍🚀",
     "a/b", "..", "C:\\x", "<b>", "a,b", "no", "nan", "a\u00a0b"],
)  # fmt: skip
def test_text_of_any_script_is_a_class_name(name):
    assert check_class_names([name]) == (name,)
