"""The whole report of all kinds of data in a browser: it opens without a complaint, shows every section, and stays small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detection.data.catalog import Dataset
from detection.report.page import SECTIONS, write_report
from detection.report.reported import ReportedDetector
from detection.structures import Detections, DetectionsByImage, Record
from tests.report.scenes import HOSTILE_NAMES, reported, scene

Data = tuple[Dataset, DetectionsByImage]


def one_class(folder: Path) -> Data:
    return scene(class_names=("cell",), folder=folder)


def many_classes(folder: Path) -> Data:
    return scene(class_names=tuple(f"{number} {'name' * (number % 50)}" for number in range(1000)), folder=folder)


def no_detections(folder: Path) -> Data:
    return scene(folder=folder)[0], {}


def no_objects(folder: Path) -> Data:
    return scene(num_objects=0, folder=folder)


def no_images(_: Path) -> Data:
    return Dataset(("cat", "dog"), []), {}


def no_classes(folder: Path) -> Data:
    dataset, _ = scene(num_objects=0, folder=folder)
    return Dataset((), dataset.records), {}


def bad_images(folder: Path) -> Data:
    """One is missing, one is no image, one is cut short, one is larger than its annotation says."""
    dataset, found = scene(folder=folder)
    missing, text, cut, larger = (record.file for record in dataset.records[:4])
    missing.unlink()
    text.write_text("no image")
    cut.write_bytes(cut.read_bytes()[:1000])
    cv2.imwrite(str(larger), np.zeros((480, 640, 3), np.uint8))
    return dataset, found


def hostile_names(folder: Path) -> Data:
    dataset, found = scene(num_images=len(HOSTILE_NAMES), class_names=HOSTILE_NAMES, folder=folder)
    names = [name.replace("/", "\u2215") for name in HOSTILE_NAMES]
    files = [folder / name / ("a" * 60) / f"\udcff{name}.png" for name in names]
    records = [replace(record, file=file) for record, file in zip(dataset.records, files, strict=True)]
    for old, new in zip(dataset.records, files, strict=True):
        new.parent.mkdir(parents=True)
        old.file.rename(new)
    return Dataset(HOSTILE_NAMES, records), found


def odd_sizes(folder: Path) -> Data:
    """Images of one pixel, and very wide and very high ones, with an object as large as each."""
    records = []
    for number, (height, width) in enumerate([(1, 1), (20, 10_000), (10_000, 20), (3, 2)]):
        file = folder / f"{number}.png"
        cv2.imwrite(str(file), np.full((height, width, 3), 90, np.uint8))
        box, no = torch.tensor([[0.0, 0, width, height]]), torch.zeros(1, dtype=torch.bool)
        records.append(
            Record(number, file, (height, width), box, torch.zeros(1, dtype=torch.long), no, no, box.prod(dim=1) + 1)
        )
    return Dataset(("cat", "dog"), records), {record.image_id: exact(record) for record in records}


def boxes_beyond(folder: Path) -> Data:
    dataset, found = scene(folder=folder)
    away = {key: replace(each, boxes=each.boxes * 40 - 3000) for key, each in found.items()}
    records = [replace(record, boxes=record.boxes - 100) for record in dataset.records]
    return Dataset(dataset.class_names, records), away


def crowds_alone(folder: Path) -> Data:
    dataset, found = scene(folder=folder)
    records = [replace(record, crowd=torch.ones(len(record.labels), dtype=torch.bool)) for record in dataset.records]
    return Dataset(dataset.class_names, records), found


def all_correct(folder: Path) -> Data:
    dataset, _ = scene(folder=folder)
    no = [torch.zeros(len(record.labels), dtype=torch.bool) for record in dataset.records]
    records = [replace(record, difficult=each, crowd=each) for record, each in zip(dataset.records, no, strict=True)]
    return Dataset(dataset.class_names, records), {record.image_id: exact(record) for record in records}


def exact(record: Record) -> Detections:
    """The objects, found."""
    return Detections(record.boxes, torch.linspace(1, 0.5, len(record.labels)), record.labels)


CASES: tuple[Callable[[Path], Data], ...] = (
    *(one_class, many_classes, no_detections, no_objects, no_images, no_classes, bad_images, hostile_names, odd_sizes),
    *(boxes_beyond, crowds_alone, all_correct),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_report_opens(case, open_page, tmp_path):
    """On a telephone and on a desk, in the light and in the dark; the fixture asserts that nothing is wrong with the page."""
    label = HOSTILE_NAMES[1] if case is hostile_names else "runs/mine"
    dataset, found = case(tmp_path)
    index = write_report(reported(dataset, found, label), tmp_path / "report")
    for width, dark in ((390, True), (1600, False)):
        page = open_page(index, width, dark=dark)
        assert page.locator("h1").inner_text() == label
        shown = page.locator("main > section:visible").evaluate_all("all => all.map((each) => each.id)")
        assert shown == [section.name for section in SECTIONS]
        for section in shown:
            assert page.locator(f"#{section}").bounding_box()["height"] > 60, section
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")


@pytest.mark.parametrize("num_classes", [3, 80, 1000])
def test_the_page_stays_small(num_classes, tmp_path):
    """500 images with 100 detections each, without thumbnails."""
    dataset, found = scene(500, tuple(f"class {number}" for number in range(num_classes)), num_detections=100)
    metrics = {"AP": 0.3, "AP50": 0.5, "AP75": 0.2, "voc_area": 0.5, "voc07": 0.5}
    class_ap = {key: dict.fromkeys(dataset.class_names, 0.123456789) for key in ("AP", "voc_area", "voc07")}
    index = write_report(ReportedDetector("runs/mine", dataset, found, metrics, class_ap), tmp_path)
    assert index.stat().st_size < 5e6
