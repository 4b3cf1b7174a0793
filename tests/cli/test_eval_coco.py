"""tools/eval_coco.py on files and on a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detection.cli.main import main
from detection.evaluation.coco import COCO_METRICS
from tests.cli.trained import write_checkpoint, write_trained
from tests.evaluation.test_coco import random_files, reference
from tests.evaluation.test_coco_masks import mask_reference, random_scene


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """annotations.json and results.json."""
    dataset, results = random_files(0)
    (tmp_path / "annotations.json").write_text(json.dumps(dataset))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    return ["eval-coco", "--annotations", f"{folder}/annotations.json", "--detections", f"{folder}/results.json", *more]


def test_files_equal_pycocotools(files, capsys):
    assert main(arguments(files, "--json", str(files / "out.json"))) == 0
    out = json.loads((files / "out.json").read_text())
    assert tuple(out) == COCO_METRICS
    assert out == pytest.approx(reference(*random_files(0)), abs=1e-12)
    shown = capsys.readouterr().out
    assert f"{out['AP50']:.4f}" in shown and "AP of cat" in shown


def test_no_detections_are_zeros(files):
    (files / "results.json").write_text("[]")
    assert main(arguments(files, "--json", str(files / "out.json"))) == 0
    assert json.loads((files / "out.json").read_text())["AP"] == 0


def write_masks(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same files with masks, and with boxes that mean nothing."""
    dataset, results = random_scene(1)
    (folder / "annotations.json").write_text(json.dumps(dataset))
    (folder / "results.json").write_text(json.dumps([result | {"bbox": [0, 0, 1, 1]} for result in results]))
    return dataset, results


def test_masks_equal_pycocotools(files, capsys):
    expected = mask_reference(*write_masks(files))
    assert main(arguments(files, "--type", "masks", "--json", str(files / "out.json"))) == 0
    out = json.loads((files / "out.json").read_text())
    assert tuple(out) == COCO_METRICS
    assert out == pytest.approx(expected, abs=1e-12)
    assert "COCO, masks" in capsys.readouterr().out


def test_boxes_are_the_default(files):
    write_masks(files)
    for name, more in (("default", []), ("boxes", ["--type", "boxes"]), ("masks", ["--type", "masks"])):
        assert main(arguments(files, "--json", f"{files}/{name}.json", *more)) == 0
    default, boxes, masks = ((files / f"{name}.json").read_text() for name in ("default", "boxes", "masks"))
    assert default == boxes != masks


def test_the_report_of_files_without_pictures(files, capsys):
    content = json.loads((files / "annotations.json").read_text())
    for image in content["images"]:
        image |= {"file_name": f"{image['id']}.jpg", "width": 300, "height": 300}
    (files / "annotations.json").write_text(json.dumps(content))
    assert main(arguments(files, "--report", str(files / "report"))) == 0
    assert (files / "report/index.html").is_file() and "report: " in capsys.readouterr().out
    assert json.loads((files / "report/report.json").read_text())["images"] == len(content["images"])


def test_the_report_of_a_model_has_its_numbers(tmp_path):
    folder = write_trained(tmp_path)
    options = ["--weights", str(folder / "best.pt"), "--json", str(folder / "out.json"), "--report", str(folder / "report")]
    assert main(["eval-coco", *options]) == 0
    numbers = json.loads((folder / "report/report.json").read_text())
    assert numbers["label"] == str(folder / "best.pt")
    expected = json.loads((folder / "out.json").read_text())
    assert {key: numbers["metrics"][key] or 0 for key in expected} == pytest.approx(
        {key: max(value, 0) for key, value in expected.items()}, abs=1e-12
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: arguments(folder, "--weights", "x.pt"), "--detections evaluates files, --weights a model"),
        (lambda folder: arguments(folder, "--write-detections", "x"), "--write-detections goes with --weights"),
        (lambda folder: arguments(folder)[:3], "--annotations goes with --detections"),
        (lambda folder: ["eval-coco", "--detections", "x"], "--detections needs --annotations"),
        (lambda folder: arguments(folder, "--type", "masks", "--report", f"{folder}/r"), "--report of files shows boxes"),
        (lambda folder: arguments(folder, "--type", "masks"), "annotations.json: image 11 must have its 'height' and 'width'"),
        (lambda folder: ["eval-coco", "--weights", str(folder / "no.pt")], "no.pt"),
        (lambda folder: [*arguments(folder)[:-1], str(folder / "no.json")], "no.json: No such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(files, change, message, capsys):
    assert main(change(files)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


@pytest.mark.parametrize("name", ["annotations.json", "results.json"])
def test_a_file_cut_in_the_middle(files, name, capsys):
    file = files / name
    file.write_text(file.read_text()[:-20])
    assert main(arguments(files)) == 2
    assert f"{name} is not valid JSON (cut short?)" in capsys.readouterr().err


def test_a_model_on_voc_data_gives_what_the_records_give(tmp_path):
    folder = write_trained(tmp_path)
    options = ["--weights", str(folder / "best.pt"), "--json", str(folder / "out.json")]
    assert main(["eval-coco", *options, "--write-detections", str(folder / "results.json")]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert {result["image_id"] for result in results} <= {"im0", "im1", "im2"}
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": "im0", "category_id": 0, "bbox": [5, 5, 35, 55], "area": 35 * 55, "iscrowd": 0},
        {"id": 2, "image_id": "im0", "category_id": 1, "bbox": [30, 0, 60, 30], "area": 60 * 30, "iscrowd": 0},
    ]
    annotations += [{**row, "id": row["id"] + 2, "image_id": "im1"} for row in annotations]
    annotations += [{**row, "id": row["id"] + 4, "image_id": "im2"} for row in annotations[:2]]
    dataset = as_coco([f"im{i}" for i in range(3)], annotations, {"cat": 0, "dog": 1})
    assert json.loads((folder / "out.json").read_text()) == pytest.approx(reference(dataset, results), abs=1e-12)


def test_a_model_on_coco_data_gives_what_pycocotools_gives(tmp_path):
    folder = write_trained(tmp_path)
    random = np.random.default_rng(0)
    annotations = [
        {
            "id": n,
            "image_id": 10 + n % 3,
            "category_id": 90 - n % 2 * 80,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": n % 5 == 0,
        }
        for n, box in enumerate((random.random((12, 4)) * 90 + 5).tolist(), 1)
    ]
    dataset = as_coco([10, 11, 12], [{**row, "iscrowd": int(row["iscrowd"])} for row in annotations], {"dog": 10, "cat": 90})
    (folder / "annotations.json").write_text(json.dumps(dataset))
    source = f"{{format: coco, root: {folder}, annotations: annotations.json, images: data/JPEGImages}}"
    options = ["--weights", str(folder / "best.pt"), f"data.test=[{source}]", "--json", str(folder / "out.json")]
    assert main(["eval-coco", *options, "--write-detections", str(folder / "results.json")]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert {result["category_id"] for result in results} <= {10, 90} and results
    numbers = json.loads((folder / "out.json").read_text())
    assert numbers == pytest.approx(reference(dataset, results), abs=1e-12)
    assert main(arguments(folder, "--json", str(folder / "again.json"))) == 0
    assert json.loads((folder / "again.json").read_text()) == pytest.approx(numbers, abs=1e-12)


def as_coco(images: list[Any], annotations: list[dict[str, Any]], categories: dict[str, int]) -> dict[str, Any]:
    size = {"width": 200, "height": 200}
    return {
        "images": [{"id": each, "file_name": f"im{index}.jpg", **size} for index, each in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def test_coco_mini_equals_pycocotools(real_data, tmp_path):
    annotations = real_data / "coco_mini/annotations/instances_train2017.json"
    dataset = json.loads(annotations.read_text())
    random = np.random.default_rng(1)
    results = [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": np.abs(np.array(row["bbox"]) * (1 + random.normal(0, 0.08, 4))).tolist(),
            "score": round(float(random.random()), 2),
        }
        for row in dataset["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    options = ["--annotations", str(annotations), "--detections", str(tmp_path / "results.json")]
    assert main(["eval-coco", *options, "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text()) == pytest.approx(reference(dataset, results), abs=1e-12)


def mask_model(folder: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], *overrides: str) -> list[str]:
    """The options of a detector with masks, on COCO's files with the pictures of `write_trained`."""
    write_trained(folder)
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    pictures = folder / "data/JPEGImages"
    test = f"data.test=[{{format: coco, root: {folder}, annotations: truth.json, images: {pictures}}}]"
    settings = ["model.mask=true", "mask.channels=8", "test.max_detections=5", test, *overrides]
    write_checkpoint(folder / "masks.pt", folder / "config.yaml", settings)
    return ["eval-coco", "--weights", str(folder / "masks.pt"), "--json", str(folder / "out.json")]


def one_image(segmentation: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 200, 200], "area": 40000, "iscrowd": 0}
    more = {} if segmentation is None else {"segmentation": segmentation}
    return [{"id": 1, "file_name": "im0.jpg", "height": 200, "width": 200}], [annotation | more]


def test_masks_of_a_model_are_those_of_its_result_file(tmp_path, capsys):
    options = mask_model(tmp_path, *one_image([[0, 0, 200, 0, 200, 200, 0, 200]]))
    results = tmp_path / "found.json"
    assert main([*options, "--type", "masks", "--write-detections", str(results)]) == 0
    assert "COCO, masks" in capsys.readouterr().out
    entries = json.loads(results.read_text())
    assert entries and all(entry["segmentation"]["size"] == [200, 200] and len(entry["bbox"]) == 4 for entry in entries)
    again = ["eval-coco", "--annotations", str(tmp_path / "truth.json"), "--detections", str(results), "--type", "masks"]
    assert main([*again, "--json", str(tmp_path / "again.json")]) == 0
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()


def test_a_model_or_a_split_without_masks_is_one_line(tmp_path, capsys):
    options = mask_model(tmp_path, *one_image(None))
    assert main([*options, "--type", "masks"]) == 2
    assert "no image of the split has masks" in capsys.readouterr().err
    assert main(["eval-coco", "--weights", str(tmp_path / "best.pt"), "--type", "masks"]) == 2
    assert "this model predicts no masks (model.mask is false)" in capsys.readouterr().err
