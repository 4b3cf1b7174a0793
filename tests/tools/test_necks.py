"""The comparison of necks: a whole one of tiny detectors, which the results' page can read; what is finished stays."""

import json
import sys
from pathlib import Path

import pytest

from docs.result_files import ComparisonResult, read_result
from tests.shapes import write_config
from tools.benchmarks import necks
from tools.benchmarks.necks import MEASURED, TRAININGS, in_own_process, seconds_per_image, settings_of

OPTIONS = ("train.steps=1", "train.log_every=1", "roi.pooling=align", "fpn.channels=16", "fpn.head_channels=16")
PYRAMID = ("rpn.anchor_sizes=[4, 8, 16, 32, 64]", "roi.pool_size=2")


def test_both_are_trained_and_measured_once(tmp_path: Path, devkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, devkit)
    options = ["--config", str(config), "--json", str(tmp_path / "out.json"), "--threads", "1", "--pyramid", *PYRAMID]
    monkeypatch.setattr(sys, "argv", ["necks", *options, "--", *OPTIONS])
    # What a process of its own is for is measured by hand; here it would only start again what runs already.
    monkeypatch.setattr(necks, "in_own_process", lambda function, *arguments: function(*arguments))
    necks.main()
    result = read_result(tmp_path / "out.json")
    assert isinstance(result, ComparisonResult) and list(result.rows) == ["C4", "pyramid"]
    assert {"AP", "APs", "voc_area", "training, s/image", "training, MB", "test, s/image", "test, MB"} <= set(result.columns)
    assert "neck: fpn" in (tmp_path / "run/pyramid/config.yaml").read_text()
    (tmp_path / "run/c4" / MEASURED).write_text('{"AP": 0.25}')
    necks.main()
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert rows["C4"]["AP"] == 0.25 and rows["C4"]["APs"] == "" and rows["pyramid"] == result.rows["pyramid"]


def test_each_row_says_what_it_is() -> None:
    assert settings_of(TRAININGS[0], PYRAMID) == ["model.neck=none", "model.mask=false"]
    assert settings_of(TRAININGS[3], PYRAMID) == ["model.neck=fpn", *PYRAMID, "model.mask=true"]


def test_the_speed_is_the_median_of_the_log(tmp_path: Path) -> None:
    lines: list[dict[str, float]] = [{"images_per_second": speed} for speed in (0.5, 2.0, 4.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, {"AP": 0.1}]))
    assert seconds_per_image(tmp_path / "metrics.jsonl") == 0.5


def test_a_process_of_its_own_answers() -> None:
    assert in_own_process(abs, -3) == 3
