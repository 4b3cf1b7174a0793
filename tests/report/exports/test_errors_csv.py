"""errors.csv: a line for each error, the dearest first, and nothing that a spreadsheet would compute."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detection.data.catalog import Dataset
from detection.evaluation.errors import ErrorKind
from detection.report.exports import errors_csv
from detection.report.exports.errors_csv import COLUMNS, ERRORS_FILE, cell_text, write_errors
from detection.report.reported import analyse
from detection.structures import Detections, Record
from tests.report.scenes import HOSTILE_NAMES, reported, scene


def lines_of(mine, folder: Path) -> list[dict[str, str]]:
    write_errors(analyse(mine), folder)
    with (folder / ERRORS_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_kind_of_error_by_hand(tmp_path):
    """Two objects, cat and dog, far apart in a picture of 200 px, and one detection of each kind."""
    boxes = torch.tensor([[0.0, 0, 40, 40], [100, 100, 140, 140], [160, 0, 180, 20]])
    none = torch.zeros(3, dtype=torch.bool)
    record = Record("one", Path("one.png"), (200, 200), boxes, torch.tensor([0, 1, 0]), none, none, torch.tensor([1600.0] * 3))
    found = Detections(
        torch.tensor(
            [
                [0.0, 0, 40, 40],  # the cat
                [0, 0, 40, 38],  # the cat again, IoU 0.95
                [100, 100, 140, 140],  # the dog, taken for a cat
                [100, 120, 140, 160],  # half of the dog, IoU 1/3
                [0, 20, 40, 60],  # half of the cat, taken for a dog
                [60, 60, 80, 80],  # nothing
            ]
        ),
        torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
        torch.tensor([0, 0, 0, 1, 1, 1]),
    )
    lines = lines_of(reported(Dataset(("cat", "dog"), [record]), {"one": found}), tmp_path)
    by_kind = {line["error"]: line for line in lines}
    assert len(lines) == 6 and set(by_kind) == {"duplicate", "class", "localisation", "both", "background", "missed"}
    shown = {kind: [line[key] for key in ("detected_class", "true_class", "score", "iou")] for kind, line in by_kind.items()}
    assert shown == {
        "duplicate": ["cat", "cat", "0.8", "0.95"],
        "class": ["cat", "dog", "0.7", "1.0"],
        "localisation": ["dog", "dog", "0.6", "0.3333"],
        "both": ["dog", "cat", "0.5", "0.3333"],
        "background": ["dog", "", "0.4", ""],
        "missed": ["", "cat", "", ""],
    }
    missed = by_kind["missed"]
    assert [missed[f"true_{key}"] for key in ("x1", "y1", "x2", "y2")] == ["160.0", "0.0", "180.0", "20.0"]
    assert missed["image"] == "one.png" and missed["image_id"] == "one" and lines[0]["error"] == "missed"


def test_all_errors_are_there_by_lost_ap(tmp_path):
    mine = reported(*scene())
    lines, analysis = lines_of(mine, tmp_path), analyse(mine)
    wrong = ~np.isin(analysis.errors.kinds, [ErrorKind.CORRECT, ErrorKind.IGNORED])
    assert len(lines) == wrong.sum() + analysis.errors.missed.sum()
    lost = [float(line["lost_ap"]) for line in lines]
    assert lost == sorted(lost, reverse=True) and lost[0] > 0
    assert {line["image"] for line in lines} <= {str(record.file) for record in mine.dataset.records}


def test_a_bound_on_the_lines_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(errors_csv, "MAX_ERRORS", 7)
    assert len(lines_of(reported(*scene()), tmp_path)) == 7
    assert "holds the 7 errors that cost most, of " in caplog.text


@pytest.mark.parametrize("num_images", [0, 2])
def test_without_errors_there_is_a_head(tmp_path, num_images):
    dataset, _ = scene(num_images=num_images, num_objects=0)
    assert lines_of(reported(dataset, {}), tmp_path) == []
    assert (tmp_path / ERRORS_FILE).read_text().strip() == ",".join(COLUMNS)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\uff1d1", "-x.png"])
def test_no_text_is_a_formula(text):
    assert cell_text(text) == f"'{text}"
    assert cell_text(f"a{text}") == f"a{text}" and cell_text(f"\t{text}") == f"\\t{text}"


def test_hostile_names_stay_in_their_cells(tmp_path):
    names = ("=HYPERLINK(0)", 'a,"b"\n', "-1", *HOSTILE_NAMES)
    dataset, found = scene(class_names=names)
    files = [Path(f"=\n\x00\udcff,{number}.png") for number in range(len(dataset.records))]
    records = [replace(record, file=file) for record, file in zip(dataset.records, files, strict=True)]
    lines = lines_of(reported(Dataset(names, records), found), tmp_path)
    assert {line["image"] for line in lines} <= {f"'=\\n\\x00\\xff,{number}.png" for number in range(len(files))}
    classes = {line["detected_class"] for line in lines} | {line["true_class"] for line in lines}
    assert classes == {"", "'=HYPERLINK(0)", 'a,"b"\\n', "'-1", *HOSTILE_NAMES}
    assert all(None not in line and None not in line.values() for line in lines)
