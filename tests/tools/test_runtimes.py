"""The comparison of runtimes: a whole one of a tiny detector, which the results' page can read."""

import sys
from pathlib import Path

import pytest
import torch

from docs.result_files import ComparisonResult, read_result
from tests.cli.trained import write_checkpoint
from tests.shapes import write_config
from tools.benchmarks import runtimes

for package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed")


def test_every_way_is_measured(tmp_path: Path, devkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, devkit)
    options = ["roi.pooling=align"]
    write_checkpoint(tmp_path / "best.pt", config, options)
    arguments = ["--config", str(config), "--weights", str(tmp_path / "best.pt"), "--json", str(tmp_path / "out.json")]
    few = ["--threads", "1", "--ranges", "2", "--timed-images", "1", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["runtimes", *arguments, *few, "--", *options])
    monkeypatch.setattr(runtimes, "has_native_bf16", lambda device: False)
    runtimes.main()
    result = read_result(tmp_path / "out.json")
    assert isinstance(result, ComparisonResult) and result.columns == ("images/s", "MB", "AP", "AP50", "voc_area")
    rows = {name: {key: float(value) for key, value in row.items()} for name, row in result.rows.items()}
    own, exact, small = (rows[name] for name in ("ours fp32", "onnxruntime fp32", "onnxruntime int8"))
    assert own["AP"] == pytest.approx(exact["AP"], abs=1e-3) and small["MB"] < exact["MB"] / 3
    assert all(row["images/s"] > 0 for row in rows.values()) and not any("bf16" in name for name in rows)


def test_the_ways_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, clock = list[str](), iter(range(100))
    monkeypatch.setattr(runtimes, "predict_frame", lambda model, image: seen.append(model))
    monkeypatch.setattr(runtimes.time, "perf_counter", lambda: next(clock))
    images = [torch.zeros(2, 2, 3).numpy()] * 2
    found = runtimes.seconds_in_turns({"a": "a", "b": "b"}, images, rounds=2)  # type: ignore[dict-item]
    assert seen == list("aabb" * 3) and found == {"a": 0.5, "b": 0.5}
