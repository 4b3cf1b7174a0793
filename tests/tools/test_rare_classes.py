"""The measurement of repeat factors: which classes are rare, and a file that the results' page can read."""

import sys
from pathlib import Path

import pytest

from docs.result_files import ComparisonResult, read_result
from tests.data.pictures import PICTURES, write_devkit
from tools.benchmarks import rare_classes


def test_rows_are_means_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        write_devkit(tmp_path, PICTURES, year="2012", split=split)
    found = {(0.0, 0): 0.5, (0.0, 1): 0.25, (0.1, 0): 1.0, (0.1, 1): 0.5}
    monkeypatch.setattr(
        rare_classes, "class_ap", lambda config, threshold, seed, output: {"dog": found[threshold, seed], "cat": 0.0}
    )
    options = ["--data", str(tmp_path), "--weights", "half.pt", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["rare_classes", *options, "--threads", "1"])
    rare_classes.main()
    result = read_result(tmp_path / "out.json")
    assert isinstance(result, ComparisonResult)
    assert result.rows["repeat_threshold 0"]["all"] == 0.1875 and result.rows["repeat_threshold 0.1"]["all"] == 0.375
    assert result.rows["repeat_threshold 0.1"]["all, by seed"] == "0.5000, 0.2500"
    assert "cat (2), dog (2)" in result.notes[0]
    assert result.commands[0].startswith("python -m tools.benchmarks.rare_classes --data")
