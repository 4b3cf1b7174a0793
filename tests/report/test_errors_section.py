"""Where the AP goes: the section's numbers are those of the evaluation, and the page shows them."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from detection.evaluation.errors import ErrorKind
from detection.evaluation.tide import MAIN_FIXES, tide
from detection.files import plain_json
from detection.report.page import write_report
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections.errors import build
from tests.report.scenes import HOSTILE_NAMES, reported, scene

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")


@pytest.fixture
def shown(open_page, tmp_path):
    """`shown(dataset, detections, ...)` writes a report and opens it; gives the section's data and its place in the page."""

    def show(dataset, detections, width=1600, *, dark=False):
        detector = reported(dataset, detections)
        page = open_page(write_report(detector, tmp_path / "report"), width, dark=dark)
        return build(analyse(detector)), page.locator("#errors")

    return show


@pytest.mark.parametrize("seed", range(3))
def test_the_last_row_is_of_all_classes_and_the_shares_add_up(seed):
    analysis = analyse(reported(*scene(seed=seed, num_detections=10)))
    data, result = build(analysis), tide(analysis.matches)
    np.testing.assert_allclose(data.gains[-1], result.gains, atol=1e-4)
    np.testing.assert_allclose(data.gains[1], result.class_gains[:, 1], atol=1e-4)
    np.testing.assert_allclose(np.array(data.shares, dtype=float).sum(axis=1), 1, atol=1e-3)
    sizes = np.array(data.sizes.missing) + np.array(data.sizes.false)
    np.testing.assert_allclose(sizes.sum(axis=1), 1, atol=1e-3)
    np.testing.assert_array_equal(np.sum(data.counts[:-1], axis=0), data.counts[-1])
    assert data.num_objects[-1] == sum(data.num_objects[:-1]) == np.sum(data.sizes.num_objects[-1])
    for fix in MAIN_FIXES[:5]:
        assert data.counts[-1][fix] == (analysis.errors.kinds == ErrorKind[fix.name]).sum()
    assert data.counts[-1][5] == analysis.errors.missed.sum()
    np.testing.assert_allclose(np.array(data.ap50, dtype=float).mean(), analysis.reported.metrics["AP50"], atol=1e-4)


def test_a_thousand_classes_are_small():
    names = tuple(f"class {number}" for number in range(1000))
    dataset, found = scene(num_images=30, class_names=names, num_detections=100)
    data = build(analyse(ReportedDetector("mine", dataset, found, {}, {})))
    assert len(json.dumps(plain_json(asdict(data)), separators=(",", ":"))) < 600_000


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1600, False)])
def test_bars_are_sorted_and_follow_the_class(shown, width, dark):
    data, section = shown(*scene(seed=1), width, dark=dark)
    for row, option in ((3, ""), (2, "2")):
        section.locator(".controls select").first.select_option(option)
        expected = sorted(range(6), key=lambda kind: (-data.gains[row][kind], -data.shares[row][kind]))
        bars = section.locator(".bars button")
        assert [text.split("\n")[0] for text in bars.all_inner_texts()] == [KINDS[kind] for kind in expected]
        values = section.locator(".bars .value").all_text_contents()
        np.testing.assert_allclose(
            [float(value[1:-3]) for value in values], [data.gains[row][kind] for kind in expected], atol=6e-4
        )
        widths = [bar.bounding_box()["width"] for bar in section.locator(".bars .fill").all()]
        assert widths == sorted(widths, reverse=True)
        objects = section.locator(".sizes tbody tr").all_inner_texts()
        assert [int(text.split("\t")[1]) for text in objects] == data.sizes.num_objects[row]


def test_a_bar_and_a_row_of_sizes_show_their_pictures(shown):
    _, section = shown(*scene(seed=1))
    page = section.page
    page.evaluate("window.asked = []; report.on('show-pictures', (filter) => window.asked.push(filter))")
    section.locator(".bars button", has_text="localisation").click()
    section.locator(".controls select").first.select_option("1")
    section.locator(".bars button", has_text="missed").click()
    section.locator(".sizes button", has_text="small").click()
    assert page.evaluate("window.asked") == [
        {"kind": int(ErrorKind.LOCALISATION), "label": None},
        {"kind": 7, "label": 1},
        {"kind": 7, "size": "small", "label": 1},
    ]


def test_a_class_is_chosen_in_the_table(shown):
    data, section = shown(*scene(class_names=HOSTILE_NAMES, num_images=20))
    section.get_by_label("find a class").fill("script")
    section.locator(".all button.row").click()
    assert section.locator(".controls select").first.input_value() == "1"
    assert section.locator(".all button.row").inner_text() == HOSTILE_NAMES[1]
    counts = section.locator(".bars button", has_text="localisation").inner_text()
    assert f"{data.counts[1][1]} detection" in counts


@pytest.mark.parametrize("options", [{"num_images": 0}, {"num_objects": 0}])
def test_nothing_to_find(shown, options):
    _, section = shown(*scene(**options))
    assert "no objects to find" in section.inner_text() and section.locator("button").count() == 0


def test_nothing_detected(shown):
    data, section = shown(*scene(num_detections=0))
    assert data.shares[-1] == [0, 0, 0, 0, 0, 1] and not any(data.gains[-1])
    first = section.locator(".bars button").first.inner_text()
    assert first.startswith("missed") and "100 % of the lost AP" in first
    assert section.locator(".bars button:enabled").count() == 1


def test_nothing_lost(shown):
    dataset, found = scene(num_images=1, num_objects=3, num_detections=0, class_names=("cat",), seed=4)
    record = dataset.records[0]
    real = record.trainable
    found = {0: type(found[0])(record.boxes[real], record.areas[real] / 1e6, record.labels[real])}
    data, section = shown(dataset, found)
    assert data.shares[-1] == [None] * 6 and data.ap50 == [1.0]
    assert "– of the lost AP" in section.locator(".bars").inner_text()
