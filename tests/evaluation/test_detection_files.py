"""The kit's text files and COCO's result lists: what is written is read back, and faults are named."""

import json
import stat

import numpy as np
import pytest
import torch

from detection.errors import DatasetError
from detection.evaluation.detection_files import (
    coco_results,
    find_voc_detections,
    read_voc_detections,
    write_voc_detections,
)
from detection.evaluation.voc import evaluate_voc, evaluate_voc_classes
from detection.files import write_json, write_whole
from detection.structures import Detections
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene

NAMES = ["cat", "dog", "cow"]


def test_the_kits_convention_by_hand(tmp_path):
    detections = {"img_01": make_detections([(0, 0, 9, 19.5)], [0.5], [0])}
    cat, dog = write_voc_detections(tmp_path, detections, ["cat", "dog"])
    assert cat.name == "comp4_det_test_cat.txt"
    assert cat.read_text() == "img_01 0.5 1.000000 1.000000 9.000000 19.500000\n"
    assert dog.read_text() == ""


def test_written_and_read_back(tmp_path):
    records = [make_record(name) for name in ("a", "b c", "d")]
    detections = {
        "b c": make_detections([(0.25, 1.5, 10.75, 20), (3, 4, 5, 6)], [0.9, 0.3]),
        "d": make_detections([(1, 2, 3, 4)], [0.7]),
    }
    write_voc_detections(tmp_path, detections, ["cat"], split="val")
    read = read_voc_detections(find_voc_detections(tmp_path, "val")["cat"], records)
    assert read.images.tolist() == [1, 1, 2]
    np.testing.assert_allclose(read.scores, [0.9, 0.3, 0.7], rtol=1e-7)
    np.testing.assert_allclose(read.boxes, [(0.25, 1.5, 10.75, 20), (3, 4, 5, 6), (1, 2, 3, 4)], atol=1e-6)


def test_neighbouring_scores_keep_their_order(tmp_path):
    one = torch.tensor(0.7)
    scores = [one.item(), torch.nextafter(one, torch.tensor(0.0)).item(), 1e-7]
    write_voc_detections(tmp_path, {"a": make_detections([(0, 0, 1, 1)] * 3, scores)}, ["cat"])
    read = read_voc_detections(tmp_path / "comp4_det_test_cat.txt", [make_record("a")])
    assert read.scores.astype(np.float32).tolist() == np.array(scores, np.float32).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_the_files_is_the_ap_in_memory(tmp_path, seed):
    records, _ = random_scene(seed, num_images=12)
    detections = jittered(records, seed, 3)
    write_voc_detections(tmp_path, detections, NAMES)
    files = find_voc_detections(tmp_path, "test")
    read = {name: read_voc_detections(file, records) for name, file in files.items()}
    assert evaluate_voc_classes(records, read, NAMES).ap == pytest.approx(evaluate_voc(records, detections, NAMES).ap)


def test_equal_scores_keep_the_files_order(tmp_path):
    # Right, wrong, right within one score, the images alternating: sorting by image would change the AP.
    records = [make_record("a", [(0, 0, 10, 10), (50, 50, 60, 60)]), make_record("b")]
    file = tmp_path / "comp4_det_test_cat.txt"
    file.write_text("a 0.5 1 1 10 10\nb 0.5 1 1 10 10\na 0.5 51 51 60 60\n")
    result = evaluate_voc_classes(records, {"cat": read_voc_detections(file, records)}, ["cat"])
    assert result.mean_ap == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0.5 1 1 10", r"txt:3: expected 6 fields \(stem score x1 y1 x2 y2\), found 5"),
        ("a 0.5 1 1 10 10 7", r"txt:3: image 'a 0.5' is not in the evaluated split; expected 6 fields .*, found 7"),
        ("a high 1 1 10 10", r"txt:3: expected five finite numbers after the stem .*found 'a high 1 1 10 10'"),
        ("a nan 1 1 10 10", r"txt:3: expected five finite numbers"),
        ("a 0.5 1 1 inf 10", r"txt:3: expected five finite numbers"),
        ("z 0.5 1 1 10 10", r"txt:3: image 'z' is not in the evaluated split: evaluate the split that was detected on"),
    ],
)
def test_faulty_lines_are_named(tmp_path, line, message):
    file = tmp_path / "comp4_det_test_cat.txt"
    file.write_text(f"a 0.9 1 1 10 10\n\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        read_voc_detections(file, [make_record("a")])


def test_any_competition_and_a_class_with_underscores_are_found(tmp_path):
    for name in ("comp3_det_test_traffic_light.txt", "comp4_det_test_cat.txt", "comp4_det_val_dog.txt", "notes.txt"):
        (tmp_path / name).touch()
    assert sorted(find_voc_detections(tmp_path, "test")) == ["cat", "traffic_light"]
    assert sorted(find_voc_detections(tmp_path, "val")) == ["dog"]


def test_files_named_for_another_split_will_do(tmp_path):
    (tmp_path / "comp4_det_test_cat.txt").touch()
    assert list(find_voc_detections(tmp_path, "val")) == ["cat"]


def test_two_files_of_a_class_are_ambiguous(tmp_path):
    for number in (3, 4):
        (tmp_path / f"comp{number}_det_test_cat.txt").touch()
    with pytest.raises(DatasetError, match="two detection files for class 'cat'"):
        find_voc_detections(tmp_path, "test")


def test_no_detection_file_and_no_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"no detection file in .*comp4_det_test_CLASS\.txt"):
        find_voc_detections(tmp_path, "test")
    with pytest.raises(DatasetError, match="no such folder"):
        find_voc_detections(tmp_path / "absent", "test")


def test_a_class_name_that_cannot_be_a_files(tmp_path):
    with pytest.raises(DatasetError, match="'cat/dog'"):
        write_voc_detections(tmp_path, {}, ["cat/dog"])


def test_coco_results_use_the_categories_ids_by_name():
    detections = {7: make_detections([(1, 2, 4, 8)], [0.5], [1]), 8: Detections.empty()}
    expected = [{"image_id": 7, "category_id": 44, "bbox": [1, 2, 3, 6], "score": 0.5}]
    assert coco_results(detections, ["cat", "dog"], {"dog": 44, "cat": 3}) == expected


def test_a_class_without_a_category_is_refused():
    with pytest.raises(DatasetError, match="class 'dog' is no category"):
        coco_results({}, ["cat", "dog"], {"cat": 3})


def test_json_is_written_whole_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "new" / "out.json"
    write_json(file, {"a": 1})
    write_json(file, [1, 2])
    assert json.loads(file.read_text()) == [1, 2]
    assert list(file.parent.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444


def test_a_failed_write_keeps_the_old_file(tmp_path):
    file = tmp_path / "out.txt"
    write_whole(file, "old")
    with pytest.raises(TypeError):
        write_whole(file, 7)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
