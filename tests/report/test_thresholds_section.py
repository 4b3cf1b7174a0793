"""The report's thresholds in a real browser: the numbers it shows and copies are Python's."""

import numpy as np
import pytest
import yaml

from detection.evaluation.calibration import class_reliabilities
from detection.evaluation.matches import match
from detection.evaluation.thresholds import (
    best_f1,
    best_thresholds,
    class_curves,
    number_text,
    overall_curve,
    threshold_for_precision,
    thresholds_for_precision,
    thresholds_text,
)
from detection.report.page import write_report
from detection.report.reported import analyse
from detection.report.sections.thresholds import WANTED, build
from tests.report.scenes import HOSTILE_NAMES, reported, scene


@pytest.fixture
def shown(open_page, tmp_path):
    """`shown(dataset, detections, ...)` writes a report and opens it; gives the matches and the page's section."""

    def show(dataset, detections, width=1600, *, dark=False):
        page = open_page(write_report(reported(dataset, detections), tmp_path / "report"), width, dark=dark)
        return match(dataset.records, detections, dataset.class_names), page.locator("#thresholds")

    return show


def words(operation) -> str:
    """What a box of the page says about a choice, number and words."""
    precision = f"{operation.precision:.3f} ({operation.num_true} of {operation.num_detections})"
    recall = f"{operation.recall:.3f} ({operation.num_true} of {operation.num_objects})"
    return f"{number_text(operation.threshold)}precision {precision}, recall {recall}, F1 {operation.f1:.3f}"


def want(section, precision: float) -> None:
    section.get_by_label("wanted precision").fill(f"{precision}")


def boxes(section) -> list[str]:
    return section.locator(".choices dd").all_text_contents()


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1600, False)])
def test_the_numbers_of_a_class_and_a_wanted_precision_are_pythons(shown, width, dark):
    matches, section = shown(*scene(seed=3, num_detections=60), width, dark=dark)
    curves = [*class_curves(matches), overall_curve(matches)]
    for option, curve in (("", curves[3]), ("1", curves[1])):
        section.locator(".controls select").select_option(option)
        for precision in (0.5, 0.57, 0.99):
            want(section, precision)
            found = threshold_for_precision(curve, precision)
            expected = words(found) if found else "–no threshold reaches it"
            assert boxes(section)[:2] == [words(best_f1(curve)), expected]
            assert section.locator("dt").nth(1).inner_text().endswith(f"precision ≥ {precision:.2f}")
    error = class_reliabilities(matches)[1].error
    assert boxes(section)[2].startswith(f"{round(error, 4):.3f}scores are ")


def test_the_copied_text_is_what_python_writes(shown):
    matches, section = shown(
        *scene(class_names=(*HOSTILE_NAMES, "yes", "a: b", "1e5", "\u200d猫👍🏽", "x" * 200), num_detections=80)
    )
    want(section, 0.61)
    section.get_by_role("button", name="Copy as YAML").click()
    text = section.get_by_label("thresholds with precision ≥ 0.61")
    expected = thresholds_for_precision(matches, 0.61)
    assert any(expected.classes)
    assert text.input_value() == thresholds_text(expected, "runs/mine")
    want(section, 0.5)
    changed = section.get_by_label("thresholds with precision ≥ 0.50").input_value()
    assert list(yaml.safe_load(changed)) == list(matches.class_names)
    assert changed == thresholds_text(thresholds_for_precision(matches, 0.5), "runs/mine")


def test_the_table_has_all_classes_and_chooses_one(shown):
    matches, section = shown(*scene(class_names=HOSTILE_NAMES, num_detections=60))
    best = best_thresholds(matches)
    rows = section.locator(".all tbody tr")
    assert rows.count() == len(HOSTILE_NAMES)
    for number, operation in enumerate(best.classes):
        assert operation is not None and f"{operation.precision:.3f}" in rows.nth(number).inner_text()
    section.get_by_label("find a class").fill("КОТ")
    rows.first.get_by_role("button").click()
    assert section.locator(".controls select").input_value() == "3"
    assert boxes(section)[0] == words(best.classes[3])


def test_the_file_beside_the_page_has_the_best_thresholds(tmp_path):
    dataset, found = scene(class_names=HOSTILE_NAMES)
    write_report(reported(dataset, found), tmp_path)
    best = best_thresholds(match(dataset.records, found, dataset.class_names))
    written = yaml.safe_load((tmp_path / "thresholds.yaml").read_text(encoding="utf-8"))
    assert written == dict(zip(HOSTILE_NAMES, best.numbers, strict=True))


@pytest.mark.parametrize("width", [390, 1600])
def test_nothing_found_and_nothing_to_find(shown, width):
    dataset, found = scene(num_images=3)
    _, section = shown(dataset, {}, width)
    assert "no threshold to choose" in section.inner_text() and section.get_by_role("button").count() == 0
    _, section = shown(*scene(num_images=3, num_objects=0), width)
    assert [text.removeprefix("–") for text in boxes(section)[:2]] == ["no object to find"] * 2
    section.get_by_role("button", name="Copy as YAML").click()
    assert set(yaml.safe_load(section.locator("textarea").input_value()).values()) == {0.5}


@pytest.mark.parametrize("num_classes", [1, 1000])
def test_one_class_and_a_thousand(shown, num_classes):
    names = tuple(f"class {number}" for number in range(num_classes))
    matches, section = shown(*scene(num_images=4, class_names=names, num_detections=100), 390)
    section.get_by_label("find a class").fill(names[-1])
    section.locator(".all tbody button").click()
    found = best_f1(class_curves(matches)[-1])
    nothing = "–no detection is right" if matches.num_objects[-1] else "–no object to find"
    assert boxes(section)[0] == (words(found) if found else nothing)


@pytest.mark.parametrize("num_classes", [2, 101])
def test_short_curves_hold_every_choice(num_classes):
    names = tuple(f"class {number}" for number in range(num_classes))
    analysis = analyse(reported(*scene(num_images=60, class_names=names, num_detections=100)))
    data = build(analysis)
    curves = [*class_curves(analysis.matches), overall_curve(analysis.matches)]
    for label, curve in enumerate(curves):
        assert len(data.thresholds[label]) <= 100
        shown = dict(zip(data.thresholds[label], np.divide(data.num_true[label], data.num_detections[label]), strict=True))
        for wanted in WANTED:
            found = threshold_for_precision(curve, wanted)
            assert next((each for each, precision in shown.items() if precision >= wanted), None) == (found and found.threshold)
        best, point = best_f1(curve), data.best[label]
        assert (None if point is None else data.thresholds[label][point]) == (None if best is None else best.threshold)
