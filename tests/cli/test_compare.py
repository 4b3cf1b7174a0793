"""resdet compare: tables, exit codes and JSON."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.cli.commands.compare import METRICS, judge
from detection.cli.main import main
from detection.data.catalog import Dataset
from detection.evaluation.coco import evaluate_coco_records, records_as_coco
from detection.evaluation.detection_files import coco_results
from detection.evaluation.metrics import RESAMPLED_METRICS
from detection.report.compared import compare_reported
from detection.structures import DetectionsByImage
from detection.terminal import new_console
from tests.cli.trained import write_trained
from tests.report.scenes import reported, scene

NAMES = ("cat", "[red]dog[/]", "bird")


def clipped_scene() -> tuple[Dataset, DetectionsByImage]:
    """Objects inside their images, as an annotation file has them after it is read."""
    dataset, found = scene(num_images=12, class_names=NAMES)
    sides = torch.tensor([320.0, 240.0, 320.0, 240.0])
    records = [replace(record, boxes=torch.minimum(record.boxes, sides)) for record in dataset.records]
    return replace(dataset, records=records), found


def write_results(folder: Path, name: str, detections: DetectionsByImage) -> None:
    ids = {name: label for label, name in enumerate(NAMES)}
    (folder / f"{name}.json").write_text(json.dumps(coco_results(detections, NAMES, ids)))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """annotations.json, and the detections of three detectors: b lacks those of every other image, c has all of a."""
    dataset, found = clipped_scene()
    content = records_as_coco(dataset.records, NAMES)
    images = [{**image, "file_name": f"{image['id']}.png", "width": 320, "height": 240} for image in content["images"]]
    (tmp_path / "annotations.json").write_text(json.dumps({**content, "images": images}))
    fewer = {image: each for image, each in found.items() if image % 2}
    for name, detections in {"a": found, "b": fewer, "c": found}.items():
        write_results(tmp_path, name, detections)
    return tmp_path


def arguments(folder: Path, names: str, *more: str) -> list[str]:
    sources = [f"{folder}/{name}.json" for name in names]
    return ["compare", *sources, "--annotations", f"{folder}/annotations.json", "--resamples", "30", *more]


def test_the_numbers_are_those_of_the_evaluation(files, capsys):
    assert main(arguments(files, "ab", "--json", str(files / "out.json"))) == 0
    out = json.loads((files / "out.json").read_text())
    dataset, found = clipped_scene()
    fewer = {image: each for image, each in found.items() if image % 2}
    first, second = (evaluate_coco_records(dataset.records, each, NAMES) for each in (found, fewer))
    (comparison,) = out["comparisons"]
    assert (out["reference"], comparison["detector"], out["images"]) == (f"{files}/a.json", f"{files}/b.json", 12)
    assert tuple(comparison["metrics"]) == METRICS == RESAMPLED_METRICS and comparison["resamples"] == 30
    ap = comparison["metrics"]["AP"]
    np.testing.assert_allclose([ap["first"], ap["second"]], [first.numbers["AP"], second.numbers["AP"]], rtol=1e-9)
    assert ap["interval"][0] <= ap["difference"] <= ap["interval"][1]
    assert {each["class"] for each in comparison["classes"]} == set(NAMES)
    shown = capsys.readouterr().out
    assert f"A: {files}/a.json" in shown and f"{ap['first']:.3f}" in shown and f"{ap['difference']:+.3f}" in shown
    assert "[red]dog[/]" in shown and "B loses most" in shown


def test_the_same_seed_gives_the_same_intervals(files):
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        assert main(arguments(files, "ab", "--seed", seed, "--json", str(files / f"{name}.json"))) == 0
    one, again, other = ((files / f"{name}.json").read_text() for name in ("one", "again", "other"))
    assert one == again and one != other


@pytest.mark.parametrize(
    ("names", "more", "code", "last"),
    [
        ("ab", ["--fail-below", "0.01"], 1, "failed: AP of "),
        ("ba", ["--fail-below", "0"], 0, "passed: no AP is more than 0 below that of "),
        ("ac", ["--fail-below", "0", "--metric", "voc07"], 0, "passed: no voc07 is more than 0 below"),
        ("acb", ["--fail-below", "0.01", "--metric", "AP50"], 1, "failed: AP50 of "),
        ("ab", ["--fail-below", "1"], 0, "passed"),
    ],
)
def test_a_detector_below_the_first_fails(files, names, more, code, last, capsys):
    assert main(arguments(files, names, *more)) == code
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(last)
    if code:
        assert f"{files}/b.json" in line and f"{files}/a.json" in line


def test_exactly_as_much_below_as_allowed_passes():
    detector = reported(*scene(num_images=3))
    compared = compare_reported([detector, detector], resamples=2)
    ap = replace(compared.comparisons[0].metrics["AP"], first=0.5, second=0.49)
    changed = replace(compared, comparisons=(replace(compared.comparisons[0], metrics={"AP": ap}),))
    assert 0.49 - 0.5 < -0.01
    assert [judge(changed, "AP", limit, new_console(quiet=True)) for limit in (0.01, 0.0099, None)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: arguments(folder, "a"), "compare takes two or more"),
        (lambda folder: arguments(folder, "ab", "--fail-below", "2"), "--fail-below must be 0 to 1"),
        (lambda folder: arguments(folder, "ab", "--resamples", "0"), "--resamples must be at least 1"),
        (lambda folder: arguments(folder, "ab", "--json", str(folder / "b.json")), "b.json"),
        (lambda folder: arguments(folder, "ax"), "x.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(files, change, message, capsys):
    before = (files / "b.json").read_text()
    assert main(change(files)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert (files / "b.json").read_text() == before


def test_without_objects_nothing_passes(files, capsys):
    content = json.loads((files / "annotations.json").read_text())
    (files / "annotations.json").write_text(json.dumps({**content, "annotations": []}))
    assert main(arguments(files, "ab")) == 0
    assert main(arguments(files, "ab", "--fail-below", "0.5")) == 2
    assert "no objects to find" in capsys.readouterr().err


def test_a_run_and_its_detections_in_files_are_equal(tmp_path, capsys):
    folder = write_trained(tmp_path)
    evaluate = ["eval-voc", "--weights", f"{folder}/best.pt", "--write-detections", f"{folder}/files"]
    assert main(evaluate) == 0
    sources = [f"{folder}/best.pt", f"{folder}/files", "--devkit", f"{folder}/data", "--fail-below", "0.01", "--resamples", "5"]
    assert main(["compare", *sources, "--json", f"{folder}/out.json"]) == 0, capsys.readouterr().err
    (comparison,) = json.loads((folder / "out.json").read_text())["comparisons"]
    assert abs(comparison["metrics"]["voc_area"]["difference"]) < 1e-3


def test_a_report_of_several_compares_them(files, capsys):
    sources = [f"{files}/a.json", f"{files}/b.json", "--annotations", f"{files}/annotations.json"]
    for _ in range(2):  # a report is replaced by a report
        assert main(["report", *sources, "--output", f"{files}/page"]) == 0, capsys.readouterr().err
    assert "report: " in capsys.readouterr().out
    assert len(list((files / "page").glob("*/index.html"))) == 2 and (files / "page/index.html").exists()
