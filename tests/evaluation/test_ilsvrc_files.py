"""Submissions survive writing and reading, and a line at fault is named."""

from __future__ import annotations

import re

import numpy as np
import pytest

from detection.errors import DatasetError
from detection.evaluation.ilsvrc import DetDetections, LocGuesses
from detection.evaluation.ilsvrc_files import (
    read_det_detections,
    read_loc_guesses,
    write_det_detections,
    write_loc_guesses,
)


def test_a_box_of_the_file_includes_its_last_pixel(tmp_path):
    (tmp_path / "det.txt").write_text("3 2 0.5 0 0 9 19\n\n1 1 1e-3 1.5 2 3 4\n")
    found = read_det_detections(tmp_path / "det.txt", 3, 2)
    assert found.images.tolist() == [2, 0] and found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[0, 0, 10, 20], [1.5, 2, 4, 5]] and found.scores.tolist() == [0.5, 0.001]


def test_detections_survive_writing_and_reading(tmp_path):
    random = np.random.default_rng(0)
    scores = random.random(200).astype(np.float32).astype(np.float64)
    boxes = np.round(random.uniform(0, 500, (200, 4)), 3)
    found = DetDetections(np.sort(random.integers(0, 9, 200)), random.integers(0, 4, 200), scores, boxes)
    write_det_detections(tmp_path / "det.txt", found)
    back = read_det_detections(tmp_path / "det.txt", 9, 4)
    order = np.lexsort((-scores, found.images))
    assert (back.labels == found.labels[order]).all() and (back.images == found.images[order]).all()
    np.testing.assert_allclose(back.scores, scores[order], rtol=1e-8)
    np.testing.assert_allclose(back.boxes, boxes[order], atol=1e-6)


def test_an_empty_file_has_no_detections(tmp_path):
    (tmp_path / "det.txt").write_text("\n")
    assert len(read_det_detections(tmp_path / "det.txt", 3, 2).scores) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 1 .5 0 0 9 9\n1 1 .5 0 0 9\n", "line 2: expected seven numbers, image_index DET_ID"),
        ("1 1 .5 0 0 9 9 9\n", "line 1: expected seven numbers"),
        ("1 cat .5 0 0 9 9\n", "line 1: expected seven numbers"),
        ("1 1 nan 0 0 9 9\n", "line 1: expected seven numbers"),
        ("0 1 .5 0 0 9 9\n", "image_index must be a whole number from 1 to 3, found 0"),
        ("4 1 .5 0 0 9 9\n", "image_index must be a whole number from 1 to 3, found 4"),
        ("12345678 1 .5 0 0 9 9\n", "image_index must be a whole number from 1 to 3, found 12345678"),
        ("1.5 1 .5 0 0 9 9\n", "image_index must be a whole number"),
        ("1 3 .5 0 0 9 9\n", "DET_ID must be a whole number from 1 to 2, found 3"),
        ("1 1 .5 0 0 9 1e12\n", "numbers must lie within 1e+09"),
        ("# a comment\n", "line 1: expected seven numbers"),
    ],
)
def test_a_line_at_fault_is_named(tmp_path, text, message):
    (tmp_path / "det.txt").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_det_detections(tmp_path / "det.txt", 3, 2)


def test_guesses_survive_writing_and_reading(tmp_path):
    labels = np.array([[0, 1, -1, -1, -1], [-1] * 5, [1, 0, 1, 0, 1]])
    boxes = np.random.default_rng(0).integers(0, 99, (3, 5, 4)).astype(float)
    write_loc_guesses(tmp_path / "loc.txt", LocGuesses(labels, boxes))
    back = read_loc_guesses(tmp_path / "loc.txt", 3, 2)
    assert (back.labels == labels).all() and (back.boxes[labels >= 0] == boxes[labels >= 0]).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 9 9\n", "has 1 lines for 2 images"),
        ("1 0 0 9 9\n1 0 0 9\n", "line 2: expected up to five groups of five numbers"),
        ("\n" + "1 0 0 9 9 " * 6 + "\n", "line 2: expected up to five groups"),
        ("\nx 0 0 9 9\n", "line 2: expected up to five groups"),
        ("3 0 0 9 9\n\n", "line 1: a label must be a whole number from 1 to 2, found 3"),
        ("1 0 0 9 1e10\n\n", "line 1: boxes must lie within 1e+09 px"),
    ],
)
def test_a_guess_at_fault_is_named(tmp_path, text, message):
    (tmp_path / "loc.txt").write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_loc_guesses(tmp_path / "loc.txt", 2, 2)
