"""The page about a data set: whole, self-contained, and nothing in names is markup."""

import base64
import io
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detection.config import Config
from detection.config.files import parse_config
from detection.data.anchor_advice import suggest_anchors
from detection.data.check import CheckedSplit, SplitStatistics, split_statistics
from detection.data.faults import Faults
from detection.data.findings import Findings, examine_data
from detection.data.report import BARS_SHOWN, MAX_MESSAGES, MAX_PICTURES, dataset_report, view_around
from detection.html import inline_picture, render_page
from tests.data.pictures import Picture, Thing, coco_content, write_coco

HOSTILE = ('<script>alert("1")</script>', "\"><img src='x' onerror='alert(2)'>", "{{ 7 * 7 }}", "猫 & $x^2$", "_dog")


class Page(HTMLParser):
    """Counts elements, collects text and sources, and what is open at the end."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.sources: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Five hostile names, one image of which has the objects of another, and faults of one kind by the hundred."""
    things = tuple(Thing(name, (5.0 * number, 5, 5.0 * number + 30, 40)) for number, name in enumerate(HOSTILE))
    pictures = [Picture(number, (60, 80), things) for number in range(1, 4)]
    content = coco_content([Picture(each.number, each.size_hw) for each in pictures])
    content["categories"] = [{"id": number, "name": name} for number, name in enumerate(HOSTILE)]
    content["annotations"] = [
        {"id": 10 * each.number + number, "image_id": each.number, "category_id": number, "bbox": [5 * number, 5, 30, 35]}
        for each in pictures
        for number in range(5)
    ]
    content["annotations"] += [{**content["annotations"][0], "id": 90, "category_id": 1}]
    content["annotations"] += [{**content["annotations"][0], "id": 100 + n, "bbox": [1, 1, -1, 5]} for n in range(100)]
    write_coco(tmp_path, pictures, content)
    source = {"format": "coco", "root": str(tmp_path), "annotations": "instances.json", "images": "images"}
    data = {"classes": list(HOSTILE), "workers": 0, "train": [source], "val": [source]}
    return parse_config(Config, {"data": data}, "mine.yaml")


def page_of(config: Config, title: str = "data") -> str:
    return dataset_report(title, examine_data(config), config)


def test_names_are_text(config):
    page = Page(page_of(config, title="<b>mine</b>\x1b[31m"))
    assert page.open == [] and page.elements["script"] == 0 and page.elements["b"] == 0 and "onerror" not in page.attributes
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    assert all(name in page.text for name in HOSTILE) and "<b>mine</b>\\x1b[31m" in page.text
    assert "3 images of val show the same as 3 of train" in page.text and "same box, another class" in page.text
    assert "200 × " not in page.text and "100 × train: inverted box, dropped" in page.text
    assert page.text.count("annotation 100 of") >= 2  # as text, and below its picture
    assert (
        page.text.count("annotation 1") <= 2 * MAX_MESSAGES + MAX_PICTURES + 4
        and f"… and {100 - MAX_MESSAGES} more" in page.text
    )
    assert 0 < page.elements["figure"] <= 3 * MAX_PICTURES + 2 * 3  # and three images of each split


def test_empty_data_make_a_page(config):
    found = examine_data(config)
    splits = [replace(split, records=[], prints=[], faults=Faults()) for split in found.splits]
    statistics = {split.name: split_statistics(split, config.data.class_names) for split in splits}
    content = dataset_report("none", Findings(splits, statistics, [], [], suggest_anchors([], config)), config)
    page = Page(content)
    assert page.open == [] and "None were found." in page.text and page.elements["figure"] == 0
    assert page.elements["tr"] == 2 + len(HOSTILE) + 9  # sizes, classes, numbers: heads and rows


def test_a_view_and_its_place():
    image = np.random.default_rng(0).integers(0, 120, (600, 1000, 3), dtype=np.uint8)
    view, shift = view_around(image, np.array([[400.0, 200.0, 700.0, 300.0]]))  # a margin of half of 300 px
    assert shift.tolist() == [250, 50, 250, 50] and (view == image[50:450, 250:850]).all()
    view, shift = view_around(image, np.array([[-20.0, 30.0, 20.0, 60.0]]))  # an eighth of the image beyond its border
    assert shift.tolist() == [-125, -75, -125, -75] and view.shape == (255, 375, 3)
    assert (view[:75] == 128).all() and (view[75:, 125:] == image[:180, :250]).all()  # a quarter of the image
    view, shift = view_around(image, np.array([[500.0, 300.0, 500.0, 300.0]]))  # of a box without area its surroundings
    assert shift.tolist() == [380, 180, 380, 180] and view.shape == (240, 240, 3)


@pytest.mark.parametrize("box", [(500, 500, 600, 600), (-900, -900, -800, -800), (-1e9, -1e9, 1e9, 1e9), (5, 5, 5, 5)])
def test_a_view_holds_some_of_the_image(box):
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    view, _ = view_around(image, np.array([box], dtype=np.float32))
    assert (view == 0).any() and view.shape[0] <= 125 and view.shape[1] <= 250


def test_pictures_of_a_page_hold_themselves():
    address = inline_picture(np.full((300, 600, 3), 90, dtype=np.uint8), longest=120)
    kind, content = address.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (120, 60) and picture.format == "WEBP"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_in_a_browser(config, open_page, tmp_path, width, dark):
    page = open_page(written(page_of(config), tmp_path), width, dark=dark)
    names = page.locator(".bars tbody th").all_inner_texts()
    assert sorted(names) == sorted(HOSTILE)
    assert page.locator(".photo img").evaluate_all("all => all.filter((each) => each.naturalWidth > 0).length") == 6
    photo = page.locator(".photo").first
    before = photo.locator("img").bounding_box()["width"]
    photo.locator("summary").press("Enter")
    assert photo.locator("img").bounding_box()["width"] > max(before, 600)
    frame = photo.locator("summary").bounding_box()
    assert frame["x"] + frame["width"] <= width and (width > 600 or before > 300)


def test_a_thousand_classes_in_a_browser(open_page, tmp_path):
    names = [f"{number} {'alongname' * (number % 20)}" for number in range(1000)]
    source = {"format": "coco", "root": str(tmp_path), "annotations": "instances.json", "images": "images"}
    config = parse_config(Config, {"data": {"classes": names, "train": [source]}}, "mine.yaml")
    counts = SplitStatistics(0, 0, 0, 0, 0, 0, 0, {name: number % 700 for number, name in enumerate(names)}, {})
    findings = Findings([CheckedSplit("train", [], Faults(), [])], {"train": counts}, [], [], suggest_anchors([], config))
    page = open_page(written(dataset_report("many", findings, config), tmp_path), 390)
    assert page.locator(".bars tbody th:visible").all_inner_texts()[0] == names[699]
    assert page.locator(".bars tbody th:visible").count() == BARS_SHOWN
    page.locator("summary", has_text="960 classes with fewer objects").click()
    assert page.locator(".bars tbody th:visible").count() == 1000


def written(content: str, folder: Path) -> Path:
    file = folder / "report.html"
    file.write_text(content, encoding="utf-8")
    return file


def test_what_a_template_does_not_get_is_no_blank():
    with pytest.raises(Exception, match="title"):
        render_page("page.html", {})
