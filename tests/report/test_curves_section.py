"""Precision and recall in a real browser: the numbers are COCO's, the curves those of Python."""

import numpy as np
import pytest

from detection.evaluation.coco import evaluate_coco_records
from detection.evaluation.precision_recall import COCO_RECALLS, interpolated_precision, scored_curves
from detection.report import page as page_module
from detection.report.reported import ReportedDetector, analyse
from detection.report.sections import curves
from detection.report.sections.curves import MAX_POINTS, SERIES, recall_step, scores_at_recalls
from detection.structures import Detections
from tests.evaluation.matched import plain_curve
from tests.report.scenes import HOSTILE_NAMES, reported, scene


def many_names(count: int) -> tuple[str, ...]:
    return tuple(f"thing {number}" for number in range(count))


def detector_of(dataset, found) -> ReportedDetector:
    return ReportedDetector("runs/mine", dataset, found, metrics={}, class_ap={})


@pytest.fixture
def show(open_page, tmp_path, monkeypatch):
    """`show(dataset, found, width)` -> a page with this section alone, and the facts that it shows."""
    monkeypatch.setattr(page_module, "SECTIONS", [each for each in page_module.SECTIONS if each.name == "curves"])
    monkeypatch.setattr(page_module, "FILES", ())

    def show_it(dataset, found, width: int = 1600, *, dark: bool = False):
        detector = detector_of(dataset, found)
        return open_page(page_module.write_report(detector, tmp_path / "report"), width, dark=dark), analyse(detector)

    return show_it


def rows(page) -> list[list[str]]:
    return page.locator("#curves-table tbody tr").evaluate_all(
        "(lines) => lines.map((line) => [...line.cells].map((cell) => cell.textContent))"
    )


def legend(page) -> list[str]:
    return page.locator("#curves .u-series .u-label").all_inner_texts()


def values_under_the_pointer(page, share: float) -> list[str]:
    """The legend's values with the pointer at a share of the chart's width."""
    area = page.locator("#curves .u-over")
    size = area.bounding_box()
    area.hover(position={"x": share * size["width"], "y": 10})
    page.wait_for_function("document.querySelector('#curves .u-value').textContent !== '–'")
    return page.locator("#curves .u-series .u-value").all_inner_texts()


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_cocos(seed):
    detector = reported(*scene(num_images=10, seed=seed))
    data = curves.build(analyse(detector))
    expected = [detector.class_ap["AP"][name] for name in data.names]
    ap, ap50, ap75 = (np.array(column, dtype=float) for column in (data.ap, data.ap50, data.ap75))
    np.testing.assert_allclose(ap, expected, atol=0.6e-5)
    np.testing.assert_allclose(ap50.mean(), detector.metrics["AP50"], atol=0.6e-5)
    np.testing.assert_allclose(ap75.mean(), detector.metrics["AP75"], atol=0.6e-5)


@pytest.mark.parametrize("row", [0, 5, 9])
def test_the_curves_of_all_classes_are_those_of_each(row):
    matches = analyse(detector_of(*scene(class_names=many_names(20)))).matches
    for label, curve in enumerate(scored_curves(matches, row)):
        for ours, alone in zip(curve, plain_curve(matches, label, row), strict=True):
            np.testing.assert_array_equal(ours, alone)


def test_a_score_is_the_greatest_that_reaches_the_recall():
    matches = analyse(detector_of(*scene())).matches
    curve = plain_curve(matches, 0, 0)
    for recall, score in zip(COCO_RECALLS, scores_at_recalls(curve), strict=True):
        reached = curve.scores[curve.recall >= recall]
        assert score == (reached.max() if len(reached) else 0)


@pytest.mark.parametrize("count", [0, 1, 80, 600, 1000, 1203, 5000])
def test_many_classes_have_fewer_points(count):
    step = recall_step(count)
    assert 100 % step == 0
    assert count * SERIES * (100 // step + 1) <= MAX_POINTS or step == 10
    assert step == 1 or count > 600


@pytest.mark.parametrize("names", [("cat",), HOSTILE_NAMES])
def test_the_table_has_cocos_numbers_and_a_row_chooses_its_class(show, names):
    dataset, found = scene(class_names=names)
    page, analysis = show(dataset, found)
    class_ap = evaluate_coco_records(dataset.records, found, names).class_ap
    assert [row[:2] for row in rows(page)] == [[name, f"{class_ap[name]:.3f}"] for name in names]
    assert [row[4] for row in rows(page)] == [str(number) for number in analysis.matches.num_objects]
    label = len(names) - 1
    page.locator("#curves-table tbody button").nth(label).press("Enter")
    assert page.locator("#curves-title").inner_text() == names[label]
    assert page.locator("#curves select").input_value() == str(label)
    assert page.locator("#curves-table tr[aria-current]").locator("td").first.inner_text() == names[label]
    assert legend(page)[3].startswith(f"mean of IoU 0.5 to 0.95: AP {class_ap[names[label]]:.3f}")


def test_the_pointer_reads_precision_and_score(show):
    page, analysis = show(*scene(num_images=40))
    page.locator("#curves select").select_option("1")
    recall, *values = values_under_the_pointer(page, 0.3)
    assert recall == "0.3"
    for text, row in zip(values, (0, 5), strict=False):
        curve = plain_curve(analysis.matches, 1, row)
        precision = interpolated_precision(curve.precision, curve.recall)[30]
        assert text.startswith(f"{precision:.3f}")
        assert text.endswith(f"score {scores_at_recalls(curve)[30]:.2f}") == (precision > 0)
    area = page.locator("#curves-chart [role=group]")
    area.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#curves .u-value").first.inner_text() == "0.31"


def test_curves_come_back_from_their_coding(show):
    page, analysis = show(*scene(class_names=(*many_names(4), "nowhere"), num_images=5, num_objects=2))
    decoded = page.evaluate("""() => {
      const { curves, recalls } = report.data("curves");
      let value = 0;
      return report.unpack(curves).map((fall, point) => (value = (point % recalls ? value : 1000) - fall));
    }""")
    found = np.flatnonzero(analysis.matches.num_objects)
    decoded = np.array(decoded).reshape(len(found), SERIES, 101) / 1000
    for values, label in zip(decoded, found, strict=True):
        for number, row in enumerate((0, 5)):
            curve = plain_curve(analysis.matches, label, row)
            np.testing.assert_allclose(values[number], interpolated_precision(curve.precision, curve.recall), atol=0.5001e-3)
            np.testing.assert_allclose(values[3 + number], scores_at_recalls(curve), atol=0.5001e-3)


def test_a_class_without_objects_has_no_curve(show):
    dataset, found = scene(num_images=4)
    for record in dataset.records:
        record.labels[record.labels == 2] = 0
    page, _ = show(dataset, found)
    assert rows(page)[2][1:5] == ["–", "–", "–", "0"]
    page.locator("#curves select").select_option("2")
    assert page.locator("#curves-empty").is_visible()
    assert "AP –" in legend(page)[1]


@pytest.mark.parametrize("num_objects", [0, 6])
def test_nothing_detected_and_nothing_to_find(show, num_objects):
    dataset, found = scene(num_images=3, num_objects=num_objects)
    page, _ = show(dataset, {} if num_objects else found)
    assert {row[1] for row in rows(page)} == ({"0.000"} if num_objects else {"–"})
    assert page.locator("#curves-empty").is_visible() == (num_objects == 0)


@pytest.mark.parametrize("dark", [False, True])
def test_a_thousand_classes_take_little_room(show, dark):
    page, _ = show(*scene(num_images=60, class_names=many_names(1000), num_objects=40), 390, dark=dark)
    assert page.evaluate("document.getElementById('data-curves').textContent.length") < 400_000
    assert len(rows(page)) == 100
    page.get_by_label("find a class").fill("thing 777")
    page.locator("#curves-table tbody tr").click()
    assert page.locator("#curves-title").inner_text() == "thing 777"
    page.get_by_role("button", name="AP", exact=True).click()
    page.get_by_label("find a class").fill("")
    values = [float(row[1]) for row in rows(page)]
    assert values == sorted(values, reverse=True)


def test_scores_above_one_are_shown_as_they_are(show):
    dataset, found = scene(class_names=("cat",))
    percent = {key: Detections(each.boxes, each.scores * 100, each.labels) for key, each in found.items()}
    page, analysis = show(dataset, percent)
    page.locator("#curves select").select_option("0")
    shown = values_under_the_pointer(page, 0.3)[1]
    expected = scores_at_recalls(plain_curve(analysis.matches, 0, 0))[30]
    assert expected > 1 and float(shown.split("score ")[1]) == pytest.approx(expected, abs=0.1)
