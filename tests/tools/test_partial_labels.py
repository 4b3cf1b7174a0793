"""The measurement of partial labels: what is hidden, and a whole one of a tiny detector, which the results' page can read."""

import sys
from pathlib import Path

import pytest
import torch

from detection.data.catalog import Dataset
from docs.result_files import ComparisonResult, read_result
from tests.evaluation.scenes import make_record
from tests.shapes import write_config
from tools.benchmarks import partial_labels
from tools.benchmarks.partial_labels import hide_classes


def test_half_of_the_classes_of_each_image_are_hidden() -> None:
    boxes = [(n, n, n + 10, n + 10) for n in range(8)]
    dataset = Dataset(tuple("abcd"), [make_record(n, boxes, [0, 1, 2, 3] * 2) for n in range(20)])
    hidden = hide_classes(dataset, 0.5, seed=0)
    for before, after in zip(dataset.records, hidden.records, strict=True):
        assert after.known is not None and int(after.known.sum()) == 2
        kept = [index for index, label in enumerate(before.labels.tolist()) if after.known[label]]
        assert after.boxes.tolist() == before.boxes[kept].tolist() and after.labels.tolist() == before.labels[kept].tolist()
        assert len(after.difficult) == len(after.crowd) == len(after.areas) == 4 and before.known is None
    assert len({str(record.known) for record in hidden.records}) > 3, "of each image others"
    again = hide_classes(dataset, 0.5, seed=0)
    for one, other in zip(hidden.records, again.records, strict=True):
        assert one.known is not None and other.known is not None and torch.equal(one.known, other.known)
    twice = hide_classes(hidden, 0.25, seed=1)
    for before, after in zip(hidden.records, twice.records, strict=True):
        assert after.known is not None and before.known is not None and not (after.known & ~before.known).any()


def test_both_trainings_are_measured(tmp_path: Path, devkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, devkit)
    options = ["--config", str(config), "--json", str(tmp_path / "out.json"), "--threads", "1", "train.steps=1"]
    monkeypatch.setattr(sys, "argv", ["partial_labels", *options])
    partial_labels.main()
    result = read_result(tmp_path / "out.json")
    assert isinstance(result, ComparisonResult)
    assert list(result.rows) == ["unknown classes left out", "unknown classes as background"]
    assert all(set(row) == {"AP", "AP50", "voc_area"} for row in result.rows.values())
    assert [row[:2] for row in result.tables[0].rows] == [("disc", 2), ("square", 2)]
    assert "of 4 objects are left" in result.notes[0]
    for folder, word in (("left_out", "true"), ("background", "false")):
        assert f"partial_labels: {word}" in (tmp_path / "run" / folder / "config.yaml").read_text()
