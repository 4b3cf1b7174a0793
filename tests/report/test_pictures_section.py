"""The section of pictures in a real browser."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detection.data.catalog import Dataset
from detection.evaluation.errors import ErrorKind
from detection.report import page as report_page
from detection.report.page import SectionWithFiles, write_report
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections import pictures
from detection.structures import Detections
from tests.report.scenes import HOSTILE_NAMES, scene

NONE = -1
MISSED = 7  # beside the numbers of ErrorKind, as the page has it
ERRORS = range(1, 6)


def reported(dataset, detections):
    return ReportedDetector("mine", dataset, detections, {}, {})


def write_pictures(source, folder):
    """A report of this section alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "SECTIONS", (SectionWithFiles("pictures", "Images", pictures.build),))
        patch.setattr(report_page, "FILES", ())
        return write_report(source, folder)


@pytest.fixture(scope="module")
def report(module_path):
    """A report of sixty images, so that not all fit into one page of them, and what it is made of."""
    source = reported(*scene(60, num_detections=8, num_objects=3, folder=module_path))
    numbers = pictures.choose_images(pictures.image_lost_ap(analyse(source))).tolist()
    return SimpleNamespace(index=write_pictures(source, module_path / "report"), analysis=analyse(source), numbers=numbers)


def shown(page):
    """The numbers of the images that are found, page by page."""
    found = []
    while True:
        found += page.eval_on_selector_all(".picture", "all => all.map((each) => Number(each.dataset.number))")
        following = page.locator("#pictures-next")
        if not following.is_visible() or following.is_disabled():
            return found
        following.click()


def count(page):
    return page.locator("#pictures-count").inner_text()


def set_score(page, value):
    page.locator("#pictures input[type=range]").fill(str(value))


def images_with(report, least=0.3, kind=None, label=None, size=None):
    """Those with a detection or a missed object that is meant, by plain loops."""
    matches, errors = report.analysis.matches, report.analysis.errors
    found, there = matches.detections, matches.objects
    wanted = set()
    for row in range(len(found)):
        width, height = found.boxes[row, 2:] - found.boxes[row, :2]
        area = width * height
        if found.scores[row] < least or (kind is not None and errors.kinds[row] != kind):
            continue
        if (label is None or found.labels[row] == label) and (size is None or np.digitize(area, [1024, 9216]) == size):
            wanted.add(int(found.images[row]))
    for row in range(len(there)):
        if kind is not None and not (kind == MISSED and errors.missed[row]):
            continue
        if (label is None or there.labels[row] == label) and (
            size is None or np.digitize(there.areas[row], [1024, 9216]) == size
        ):
            wanted.add(int(there.images[row]))
    return wanted


def test_all_images_come_by_lost_ap_a_page_at_a_time(open_page, report):
    page = open_page(report.index)
    assert count(page) == "60 of 60 images"
    assert page.locator(".picture").count() == 48
    assert shown(page) == report.numbers
    assert page.locator(".picture").count() == 12
    page.locator("#pictures-back").click()
    assert page.locator(".picture").count() == 48


def test_a_kind_finds_the_images_in_which_it_occurs(open_page, report):
    page = open_page(report.index)
    set_score(page, 0.05)
    for kind, chip in enumerate(page.locator("#pictures-kinds label").all()):
        chip.click()
        expected = images_with(report, 0.05, kind)
        assert 0 < len(expected) < 60
        assert shown(page) == [number for number in report.numbers if number in expected]
        assert count(page) == f"{len(expected)} of 60 images"
        chip.click()


def test_counts_of_kinds_are_those_of_detections_and_missed_objects(open_page, report):
    page = open_page(report.index)
    matches, errors = report.analysis.matches, report.analysis.errors
    counted = errors.kinds[matches.detections.scores >= 0.3]
    expected = [int((counted == kind).sum()) for kind in ErrorKind] + [int(errors.missed.sum())]
    assert [int(text) for text in page.locator("#pictures-kinds .number").all_inner_texts()] == expected


def test_filters_combine(open_page, report):
    page = open_page(report.index)
    set_score(page, 0.6)
    page.locator("#pictures-controls select").first.select_option("1")
    page.get_by_label("object size").select_option("2")
    assert set(shown(page)) == images_with(report, 0.6, label=1, size=2)
    page.locator("#pictures-kinds label").nth(ErrorKind.BACKGROUND).click()
    expected = images_with(report, 0.6, kind=ErrorKind.BACKGROUND, label=1, size=2)
    assert expected and set(shown(page)) == expected
    page.get_by_role("searchbox", name="file name").fill("IMAGE 1")
    assert set(shown(page)) == {number for number in expected if str(number).startswith("1")}
    page.locator("#pictures-clear").click()
    assert count(page) == "60 of 60 images" and not page.locator("#pictures-clear").is_visible()


def test_a_picture_tells_what_is_meant_in_it(open_page, report):
    page = open_page(report.index)
    ask(page, kind=int(ErrorKind.BACKGROUND), label=0)
    found, kinds = report.analysis.matches.detections, report.analysis.errors.kinds
    number = int(page.locator(".picture").first.get_attribute("data-number"))
    meant = (kinds == ErrorKind.BACKGROUND) & (found.labels == 0) & (found.scores >= 0.05) & (found.images == number)
    words = f"{meant.sum()} background · highest score {found.scores[meant].max():.2f}"
    assert page.locator(".picture > .faint").first.inner_text() == words


def test_kinds_add_up(open_page, report):
    page = open_page(report.index)
    for kind in (ErrorKind.CLASS, MISSED):
        page.locator("#pictures-kinds label").nth(kind).click()
    assert set(shown(page)) == images_with(report, kind=ErrorKind.CLASS) | images_with(report, kind=MISSED)


def orders_of(report, least=0.3):
    found, kinds, missed = report.analysis.matches.detections, report.analysis.errors.kinds, report.analysis.errors.missed
    wrong = np.isin(kinds, ERRORS) & (found.scores >= least)
    objects = report.analysis.matches.objects
    errors = np.bincount(found.images[wrong], minlength=60) + np.bincount(objects.images[missed], minlength=60)
    worst = [max(found.scores[wrong & (found.images == number)], default=-1) for number in range(60)]
    return {"errors": errors, "score": np.array(worst)}


@pytest.mark.parametrize("order", ["errors", "score"])
def test_images_are_ordered(open_page, report, order):
    page = open_page(report.index)
    page.get_by_label("sort by").select_option(order)
    values = orders_of(report)[order]
    assert shown(page) == sorted(report.numbers, key=lambda number: -values[number])


def test_file_names_are_ordered_as_people_count(open_page, report):
    page = open_page(report.index)
    page.get_by_label("sort by").select_option("file")
    assert shown(page) == list(range(60))


# --- what other sections ask for ------------------------------------------------------------------------------------------


def ask(page, **wanted):
    page.evaluate("wanted => report.emit('show-pictures', wanted)", wanted)


def test_another_section_can_ask_for_a_kind_of_a_class(open_page, report):
    page = open_page(report.index)
    page.get_by_role("searchbox", name="file name").fill("nothing")
    ask(page, kind=int(ErrorKind.BACKGROUND), label=2, size="medium", minScore=0.5)
    assert set(shown(page)) == images_with(report, 0.5, ErrorKind.BACKGROUND, label=2, size=1)
    assert page.evaluate("Math.abs(document.getElementById('pictures').getBoundingClientRect().top)") < 400
    assert page.evaluate("document.activeElement.id") in ("pictures-count", "") or page.locator(".picture:focus").count() == 1
    ask(page, kind=MISSED)
    assert set(shown(page)) == images_with(report, kind=MISSED)


@pytest.mark.parametrize(("true_label", "detected_label"), [(0, 1), (2, 2), (3, 0), (1, 3)])
def test_a_cell_of_the_confusion_matrix_finds_its_images(open_page, report, true_label, detected_label):
    """Three classes: 3 is background among the true ones and missed among the detected ones."""
    matches, confusion = report.analysis.matches, report.analysis.confusion
    found, there = matches.detections, matches.objects
    if detected_label == 3:
        scores = np.where(confusion.found_by == NONE, -1, found.scores[confusion.found_by])
        expected = there.images[(there.labels == true_label) & ~there.ignored & (scores < 0.4)]
    else:
        cell = (confusion.true_labels == true_label) & (found.labels == detected_label) & (found.scores >= 0.4)
        expected = found.images[cell]
    page = open_page(report.index)
    ask(page, trueLabel=true_label, detectedLabel=detected_label, minScore=0.4)
    assert len(expected) > 0 and set(shown(page)) == set(expected.tolist())
    names = ["cat", "dog", "bird"]
    words = (
        "dog without a matching detection"
        if detected_label == 3
        else f"{(*names, 'background')[true_label]} detected as {names[detected_label]}"
    )
    chip = page.locator("#pictures-active button")
    assert words in chip.inner_text()
    chip.click()
    assert count(page) == "60 of 60 images" and chip.count() == 0


def test_chosen_images_are_shown_and_told_where_they_are_not(open_page, report):
    page = open_page(report.index)
    ask(page, images=[3, 5, 99])
    assert sorted(shown(page)) == [3, 5]
    assert count(page) == "2 of 60 images; 1 of those chosen are not among the 60"
    page.get_by_role("button", name="3 chosen images").click()
    assert count(page) == "60 of 60 images"


# --- the large picture ----------------------------------------------------------------------------------------------------


def opened(page):
    viewer = page.locator("dialog.viewer")
    return viewer.locator(".position").inner_text() if viewer.is_visible() else None


def assert_closed_at(page, number):
    """The focus is on an image's small picture. A closing dialog first puts it where it was before, and only then tells so."""
    page.wait_for_function("number => document.activeElement.dataset.number === number", arg=str(number))
    assert opened(page) is None


def test_the_large_picture_goes_through_the_images_found_by_keyboard(open_page, report):
    page = open_page(report.index)
    page.get_by_role("searchbox", name="file name").fill("image 1")
    numbers = shown(page)
    page.locator(".picture").nth(1).focus()
    page.keyboard.press("Enter")
    assert opened(page) == f"2 of {len(numbers)}"
    assert page.evaluate("location.hash") == f"#picture={numbers[1]}"
    for key, place in [("ArrowRight", 3), ("ArrowLeft", 2), ("ArrowLeft", 1), ("ArrowLeft", 1)]:
        page.keyboard.press(key)
        assert opened(page) == f"{place} of {len(numbers)}"
    assert page.locator("dialog h3").inner_text() == f"image {numbers[0]} '{numbers[0]}'.png"
    page.keyboard.press("Escape")
    assert_closed_at(page, numbers[0])
    assert page.evaluate("location.hash") == "#pictures"


def test_at_the_last_image_the_keys_are_still_heard(open_page, report):
    """The button that has the focus is disabled there."""
    page = open_page(report.index)
    page.locator(".picture").first.click()
    page.get_by_role("button", name="Previous image").click(force=True)
    page.get_by_role("button", name="Next image").click()
    page.get_by_role("button", name="Previous image").press("Enter")
    assert opened(page) == "1 of 60"
    page.keyboard.press("ArrowRight")
    assert opened(page) == "2 of 60"


def test_the_back_button_closes_the_large_picture(open_page, report):
    page = open_page(report.index)
    page.goto(f"{report.index.as_uri()}#pictures")
    page.evaluate("location.hash = '#picture=9'")
    page.wait_for_selector("dialog[open]")
    page.go_back()
    page.wait_for_selector("dialog", state="hidden")
    assert page.evaluate("location.hash") == "#pictures"


def test_after_the_large_picture_its_page_of_small_ones_is_there(open_page, report):
    page = open_page(report.index)
    page.locator(".picture").nth(47).click()
    page.get_by_role("button", name="Next image").click()
    page.get_by_role("button", name="Close").click()
    assert_closed_at(page, report.numbers[48])
    assert page.locator("#pictures-pages span").inner_text() == "49–60 of 60"


def test_an_address_opens_its_picture(open_page, report):
    page = open_page(report.index)
    page.goto(f"{report.index.as_uri()}#picture=7")
    page.reload()
    assert opened(page) == f"{report.numbers.index(7) + 1} of 60"
    page.keyboard.press("Escape")
    assert_closed_at(page, 7)
    page.evaluate("location.hash = '#picture=9'")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    assert_closed_at(page, 9)
    page.evaluate("location.hash = '#picture=1234'")
    assert opened(page) is None


def test_the_large_picture_lists_its_objects_and_detections(open_page, report):
    matches, errors = report.analysis.matches, report.analysis.errors
    number = next(n for n in report.numbers if (errors.kinds[matches.detections.images == n] == ErrorKind.CLASS).any())
    page = open_page(report.index)
    set_score(page, 0.05)
    page.locator(f".picture[data-number='{number}']").click()
    truth, found = page.locator(".lists > div").all()
    rows = np.flatnonzero((matches.detections.images == number) & (matches.detections.scores >= 0.05))
    names = matches.class_names
    expected = [f"{names[matches.detections.labels[row]]} {matches.detections.scores[row]:.2f}" for row in rows]
    assert found.locator("b").all_inner_texts() == expected
    wrong = next(place for place, row in enumerate(rows) if errors.kinds[row] == ErrorKind.CLASS)
    at = matches.best_other[rows[wrong]]
    note = f"class: the object is {names[matches.objects.labels[at]]} · IoU {matches.best_other_iou[rows[wrong]]:.2f}"
    assert found.locator(".faint").nth(wrong).inner_text() == note
    objects = np.flatnonzero(matches.objects.images == number)
    assert sorted(truth.locator("b").all_inner_texts()) == sorted(names[label] for label in matches.objects.labels[objects])
    notes = truth.locator(".faint").all_inner_texts()
    assert sum(note.startswith("missed") for note in notes) == errors.missed[objects].sum()


def inked(page, table):
    """The picture of boxes over one of the two large pictures."""
    return page.locator(".panels canvas").nth(table).evaluate("canvas => canvas.toDataURL()")


def test_an_item_of_the_list_lights_its_box(open_page, report):
    page = open_page(report.index)
    page.locator(".picture").first.click()
    before = inked(page, 1)
    page.locator(".lists > div").nth(1).locator("button").first.focus()
    lit = inked(page, 1)
    assert lit != before
    page.keyboard.press("Tab")
    assert inked(page, 1) != lit
    page.locator(".viewer-body").focus()
    assert inked(page, 1) == before


# --- whatever the data are ------------------------------------------------------------------------------------------------


def test_an_image_without_a_picture_says_so_and_shows_its_boxes(open_page, tmp_path):
    index = write_pictures(reported(*scene(2)), tmp_path)
    page = open_page(index)
    assert page.locator(".picture img").count() == 0
    assert all("no image file" in text for text in page.locator(".picture > .faint").all_inner_texts())
    page.locator(".picture").first.click()
    assert "The image cannot be shown: cannot read image" in page.locator("dialog .note").inner_text()
    blank = page.evaluate("""() => {
      const shown = document.querySelector('.panels canvas'), blank = document.createElement('canvas');
      [blank.width, blank.height] = [shown.width, shown.height];
      return shown.toDataURL() === blank.toDataURL();
    }""")
    assert not blank


@pytest.mark.parametrize("what", ["no images", "no detections", "no objects"])
def test_nothing_is_no_fault(open_page, tmp_path, what):
    dataset, detections = scene(0 if what == "no images" else 2, num_objects=0 if what == "no objects" else 6)
    page = open_page(write_pictures(reported(dataset, {} if what == "no detections" else detections), tmp_path))
    total = len(dataset.records)
    assert count(page) == f"{total} of {total} images"
    if total:
        page.locator(".picture").first.click()
        assert opened(page) == "1 of 2"
    else:
        assert page.locator("#pictures-about").inner_text() == "There are no images."


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1600])
def test_hostile_names_are_text(open_page, tmp_path, width, dark):
    dataset, detections = scene(3, (*HOSTILE_NAMES, "long " * 40), folder=tmp_path)
    names = ["<img src=x onerror=alert(1)>.png", "{{ 7 * 7 }} \" onmouseover='alert(1)'.png", "x" * 200 + "猫.png"]
    for record, name in zip(dataset.records, names, strict=True):
        object.__setattr__(record, "file", record.file.rename(tmp_path / name))
    page = open_page(write_pictures(reported(dataset, detections), tmp_path / "report"), width, dark=dark)
    assert sorted(page.locator(".picture .name").all_inner_texts()) == sorted(names)
    ask(page, trueLabel=1, detectedLabel=0, minScore=0)
    page.locator("#pictures-clear").click()
    for place in range(3):
        page.locator(".picture").nth(place).click()
        assert page.locator("dialog h3").inner_text() in names
        wide, room = page.locator(".viewer-body").evaluate("body => [body.scrollWidth, body.clientWidth]")
        assert wide <= room
        page.keyboard.press("Escape")
        page.wait_for_function("location.hash === '#pictures'")
    assert page.locator("b b, h3 img, .name img").count() == 0


def crowded(num_images, num_detections):
    """As many detections as are shown at most, made quickly."""
    dataset, _ = scene(num_images, num_detections=0)
    random = np.random.default_rng(0)
    detections = {}
    for record in dataset.records:
        corners, sides = random.uniform(0, 180, (num_detections, 2)), random.uniform(8, 60, (num_detections, 2))
        boxes = torch.tensor(np.concatenate([corners, corners + sides], axis=1), dtype=torch.float32)
        scores = torch.tensor(np.sort(random.uniform(0.05, 1, num_detections))[::-1].copy(), dtype=torch.float32)
        detections[record.image_id] = Detections(boxes, scores, torch.arange(num_detections) % 3)
    return Dataset(dataset.class_names, dataset.records), detections


def test_five_hundred_crowded_images_are_one_page_of_few_elements(open_page, tmp_path):
    index = write_pictures(reported(*crowded(501, 100)), tmp_path)
    text = index.read_text(encoding="utf-8")
    (data,) = re.findall(r'id="data-pictures">(.*?)</script>', text)
    assert len(data) < 2.5e6
    page = open_page(index)
    assert count(page) == "500 of 500 images"
    assert "The 500 of 501 images" in page.locator("#pictures-about").inner_text()
    assert page.locator("#pictures *").count() < 1500
