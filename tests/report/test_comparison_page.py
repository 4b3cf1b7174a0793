"""The page of several detectors in a real browser."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detection.data.catalog import Dataset
from detection.engine.run_curves import MetricCurve, RunCurves
from detection.errors import DatasetError
from detection.html import signed_text
from detection.report.compared import detector_name
from detection.report.comparison_page import axis_limit, folder_name, write_comparison
from detection.report.disagreement_pictures import count_names
from detection.report.overlaid_curves import MAX_POINTS, overlay_curves, thinned
from tests.report.scenes import HOSTILE_NAMES, reported, scene


def pair(folder: Path | None = None, labels=("runs/a", "runs/b"), **options):
    """Two detectors of one data set: the second lacks the detections of every other image."""
    dataset, found = scene(folder=folder, **options)
    fewer = {image: each for image, each in found.items() if image % 2}
    return [reported(dataset, each, label) for each, label in zip((found, fewer), labels, strict=True)]


def run_of(steps: int, shift: float = 0.0) -> RunCurves:
    numbers = list(range(10, 10 * steps + 1, 10))
    loss = MetricCurve(numbers, [1 / step + shift for step in numbers])
    return RunCurves(Path("run"), {"loss": loss}, {"AP": MetricCurve(numbers[-2:], [0.1 + shift, 0.2 + shift])})


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_opens_without_a_complaint(open_page, tmp_path, width, dark):
    detectors = [replace(each, run=run_of(30)) for each in pair(tmp_path, num_images=4)]
    page = open_page(write_comparison(detectors, tmp_path / "page", resamples=20), width, dark=dark)
    assert page.locator("h1").inner_text() == "runs/b vs. runs/a"
    page.locator("details.all summary").click()
    assert page.locator(".class-table tbody tr").count() == 3
    assert page.locator("#curves .chart").count() == 2
    assert all(page.locator("figure img").evaluate_all("each => each.map((one) => one.loading = 'eager')"))
    page.wait_for_function("[...document.images].every((each) => each.complete && each.naturalWidth)")


def test_numbers_and_intervals_stand_where_they_belong(open_page, tmp_path):
    detectors = pair(num_images=12)
    page = open_page(write_comparison(detectors, tmp_path / "page", resamples=50))
    row = page.locator("#B .differences").first.locator("tbody tr").first
    first, second = (each.metrics["AP"] for each in detectors)
    assert row.locator("td").nth(0).inner_text() == f"{first:.3f}" and row.locator("td").nth(1).inner_text() == f"{second:.3f}"
    assert row.locator("td").nth(2).inner_text() == signed_text(second - first)
    box, whisker, point = (row.locator(each).bounding_box() for each in (".interval", ".whisker", ".point"))
    zero, at = box["x"] + box["width"] / 2, point["x"] + point["width"] / 2
    assert box["x"] <= whisker["x"] <= at <= whisker["x"] + whisker["width"] <= box["x"] + box["width"]
    assert (at < zero) == (second < first)


def test_each_has_its_own_report(open_page, tmp_path):
    labels = ("../../runs/<b>a</b>", "../../runs/<b>a</b>", "名前" * 200)
    dataset, found = scene(num_images=3)
    index = write_comparison([reported(dataset, found, label) for label in labels], tmp_path / "page", resamples=5)
    page = open_page(index, 390)
    links = page.locator("#detectors a").evaluate_all("each => each.map((one) => one.getAttribute('href'))")
    assert len(set(links)) == 3 and all((index.parent / link).resolve().is_relative_to(index.parent) for link in links)
    for link, label in zip(links, labels, strict=True):
        assert open_page(index.parent / link).locator("h1").inner_text() == label


def test_names_are_text_and_never_markup(open_page, tmp_path):
    page = open_page(
        write_comparison(pair(class_names=HOSTILE_NAMES, labels=("<i>a</i>", "{{ 1 }}")), tmp_path / "page", resamples=10)
    )
    assert page.locator("h1").inner_text() == "{{ 1 }} vs. <i>a</i>"
    assert page.locator("i, b").count() == 0
    page.locator("details.all summary").click()
    assert sorted(page.locator(".class-table tbody td:first-child").all_inner_texts()) == sorted(HOSTILE_NAMES)


def test_several_are_compared_with_the_first(open_page, tmp_path):
    first, second = pair(num_images=6)
    detectors = [first, second, replace(first, label="c", run=run_of(20))]
    page = open_page(write_comparison(detectors, tmp_path, resamples=10))
    assert page.locator("h1").inner_text() == "3 detectors compared"
    assert [each.split(":")[0] for each in page.locator("section h2").all_inner_texts()] == [
        *("Detectors", "B vs. A", "C vs. A", "Training")
    ]
    assert "find the same objects in every image" in page.locator("#C").inner_text()
    assert "does not differ clearly: 0.000" in page.locator("#C .headline").inner_text()


@pytest.mark.parametrize(
    "options", [{"num_images": 0}, {"num_objects": 0}, {"num_detections": 0}, {"class_names": ("cat",)}, {"num_images": 1}]
)
def test_little_or_nothing_to_compare(open_page, tmp_path, options):
    page = open_page(write_comparison(pair(**options), tmp_path, resamples=5), 390)
    assert page.locator(".headline").count() == 1


def test_pictures_of_an_earlier_page_go_and_other_files_stay(tmp_path):
    folder = tmp_path / "page"
    write_comparison(pair(tmp_path, num_images=6), folder, resamples=5)
    assert any((folder / "pictures").glob("1-*.webp"))
    (folder / "pictures/mine.webp").touch()
    equal = pair(tmp_path, num_images=6)[0]
    write_comparison([equal, equal], folder, resamples=5)
    assert [file.name for file in (folder / "pictures").iterdir()] == ["mine.webp"]


def _without_an_object(dataset: Dataset) -> Dataset:
    number = next(number for number, record in enumerate(dataset.records) if len(record.boxes))
    record = dataset.records[number]
    fewer = {name: getattr(record, name)[1:] for name in ("boxes", "labels", "difficult", "crowd", "areas")}
    return replace(dataset, records=[*dataset.records[:number], replace(record, **fewer), *dataset.records[number + 1 :]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda each: replace(each, class_names=("cat", "dog", "cow")),
            "the first at number 2: 'bird' and 'cow'",
        ),
        (lambda each: replace(each, class_names=("cat", "dog", "bird", "cow")), "the first at number 3: none and 'cow'"),
        (lambda each: replace(each, records=each.records[:-1]), "image 5 is only in the data of 'runs/a'"),
        (_without_an_object, "the objects of image 0 are not the same"),
    ],
)
def test_other_data_are_refused_before_anything_is_written(tmp_path, change, message):
    first, second = pair(num_images=6)
    other = replace(second, dataset=change(second.dataset), detections={})
    with pytest.raises(DatasetError, match=f"'runs/a' and 'runs/b' cannot be compared: .*{message}"):
        write_comparison([first, other], tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_equal_data_that_were_read_twice_are_the_same(tmp_path):
    first, second = pair(num_images=6)
    again = replace(second, dataset=replace(second.dataset, records=[*reversed(scene(num_images=6)[0].records)]))
    assert write_comparison([first, again], tmp_path, resamples=5).exists()


def test_curves_are_thinned_and_share_their_steps():
    long, short = run_of(5000), run_of(7, shift=0.5)
    loss, ap = overlay_curves([None, long, short])
    assert loss.detectors == ap.detectors == [1, 2] and len(loss.steps) <= MAX_POINTS + 7
    kept = [value for value in loss.values[1] if value is not None]
    np.testing.assert_allclose(kept, short.training["loss"].values, rtol=1e-3)
    assert overlay_curves([None]) == []
    gaps = thinned(MetricCurve([1, 2, 3, 4], [float("nan"), 1.0, float("nan"), float("nan")]), most=2)
    assert gaps.steps == [2, 4] and gaps.values[0] == 1 and np.isnan(gaps.values[1])


def test_names_of_detectors_and_folders():
    assert [detector_name(number) for number in (0, 25, 26, 53)] == ["A", "Z", "A2", "B3"]
    assert folder_name(1, "../runs/Mine v2/") == "2-runs-mine-v2" and folder_name(0, "名") == "1-detector"
    assert len(folder_name(0, "x" * 500)) < 50


def test_an_axis_reaches_as_far_as_its_values():
    assert [axis_limit(values) for values in ([], [0.0], [0.011, -0.02], [-0.021], [0.7], [float("nan")])] == [
        *(0.01, 0.01, 0.02, 0.05, 1.0, 0.01)
    ]
    assert [signed_text(value) for value in (0.01, -0.01, -0.0001)] == ["+0.010", "−0.010", "0.000"]


def test_names_in_a_caption_are_counted_and_few():
    assert count_names(["dog", "cat", "dog"]) == "2 × dog, cat"
    assert count_names([*"aabcde"]) == "2 × a, b, c, d, 1 other" and count_names([*"abcdef"]).endswith("2 others")
