"""The class lists of the benchmarks."""

import pytest

from detection.config.class_lists import COCO_CLASSES, VOC_CLASSES, canonical_name, resolve_classes
from detection.errors import ConfigError


def test_class_lists():
    assert len(VOC_CLASSES) == 20 and len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert resolve_classes("voc") == VOC_CLASSES and resolve_classes(["a", "b"]) == ("a", "b")
    with pytest.raises(ConfigError, match="'imagenet'"):
        resolve_classes("imagenet")


def test_both_benchmarks_name_their_twenty_common_classes_alike():
    assert {canonical_name(name) for name in COCO_CLASSES} >= set(VOC_CLASSES)
    assert canonical_name("tv") == "tvmonitor" and canonical_name("anything else") == "anything else"
