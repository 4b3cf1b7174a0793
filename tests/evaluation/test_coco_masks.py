"""COCO's numbers for masks must be pycocotools' own, whatever form the masks have in the files."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from detection.errors import DatasetError
from detection.evaluation.coco import COCO_METRICS, evaluate_coco_files, evaluate_coco_results
from detection.evaluation.coco_files import read_annotations, read_results
from tests.evaluation.test_coco import reference

CATEGORIES = [{"id": 90, "name": "cow"}, {"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]
SIZES = [(90, 140), (200, 150), (33, 47)]


def as_text(bitmap: np.ndarray) -> dict[str, Any]:
    rle = mask_api.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def as_numbers(bitmap: np.ndarray) -> dict[str, Any]:
    pixels = bitmap.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
    return {"size": list(bitmap.shape), "counts": np.diff([0, *edges, pixels.size]).tolist()}


def as_bitmap(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    return mask_api.decode(mask_api.merge(mask_api.frPyObjects(polygons, *size))).astype(bool)


def random_polygons(random: np.random.Generator, size: tuple[int, int]) -> list[list[float]]:
    """An object of one or two parts, now and then too small for a pixel."""
    height, width = size
    centre, radius = random.random(2) * [width, height], random.choice([0.1, 4, 12, 40])
    angles = np.sort(random.random((int(random.integers(1, 3)), 7)) * 2 * np.pi, axis=1)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=2) * radius + centre + random.normal(0, 3, (len(angles), 1, 2))
    return points.round(2).reshape(len(angles), -1).tolist()


def in_some_form(random: np.random.Generator, polygons: list[list[float]], size: tuple[int, int]) -> Any:
    form = int(random.integers(0, 3))
    return polygons if form == 0 else (as_text, as_numbers)[form - 1](as_bitmap(polygons, size))


def random_scene(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Content of an annotation and a result file: overlapping masks in all forms, crowds, areas that are not the mask's own,
    equal scores, an image without anything, boxes that mean nothing."""
    random = np.random.default_rng(seed)
    images = [{"id": 5 * n + 2, "height": height, "width": width} for n, (height, width) in enumerate(SIZES)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        size = image["height"], image["width"]
        for _ in range(int(random.integers(0, 6))):
            polygons, category = random_polygons(random, size), int(random.choice([1, 7, 90]))
            crowd = int(random.random() < 0.2)
            entry = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "iscrowd": crowd}
            area = float(as_bitmap(polygons, size).sum() * random.choice([1, 0.6, 3]))
            shape = as_numbers(as_bitmap(polygons, size)) if crowd else in_some_form(random, polygons, size)
            annotations.append(entry | {"segmentation": shape, "area": area, "bbox": [0, 0, 5, 5]})
            for _ in range(int(random.integers(0, 3))):
                moved = [(np.array(part) + random.normal(0, 2, 1)).tolist() for part in polygons]
                found = {"image_id": image["id"], "category_id": category, "score": float(random.integers(1, 6)) / 5}
                results.append(found | {"segmentation": in_some_form(random, moved, size)})
    order = random.permutation(len(results))
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, [results[index] for index in order]


def mask_reference(dataset: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """pycocotools' numbers; it takes results as run lengths only, which it makes itself here, and without boxes."""
    api = COCO()
    api.imgs = {image["id"]: image for image in dataset["images"]}
    made = [{key: value for key, value in each.items() if key != "bbox"} for each in results]
    return reference(dataset, [each | {"segmentation": api.annToRLE(each)} for each in made], "segm")


def write(folder: Path, dataset: Any, results: Any) -> tuple[Path, Path]:
    files = folder / "annotations.json", folder / "results.json"
    for file, content in zip(files, (dataset, results), strict=True):
        file.write_text(json.dumps(content))
    return files


def evaluate(folder: Path, dataset: Any, results: Any) -> dict[str, float]:
    return evaluate_coco_files(*write(folder, dataset, results), iou_type="masks")


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_files_equal_pycocotools(tmp_path_factory, seed):
    dataset, results = random_scene(seed)
    if results and dataset["annotations"]:
        numbers = evaluate(tmp_path_factory.mktemp("masks"), dataset, results)
        assert tuple(numbers) == COCO_METRICS
        assert numbers == pytest.approx(mask_reference(dataset, results), abs=1e-12)


def test_scenes_are_neither_all_right_nor_all_wrong(tmp_path):
    numbers = [evaluate(tmp_path, *random_scene(seed))["AP"] for seed in range(5)]
    assert 0.1 < np.mean(numbers) < 0.9 and len(set(numbers)) == 5


def test_coco_mini_equals_pycocotools(real_data: Path, tmp_path: Path):
    dataset = json.loads((real_data / "coco_mini/annotations/masks_val2017.json").read_text())
    dataset["images"] = dataset["images"][:60]  # with all but one of the crowds; all hundred take twice the time
    kept = {image["id"] for image in dataset["images"]}
    dataset["annotations"] = [row for row in dataset["annotations"] if row["image_id"] in kept]
    random, results = np.random.default_rng(0), []
    for row in dataset["annotations"]:
        for _ in range(int(random.integers(0, 3))):
            moved = np.roll(mask_api.decode(row["segmentation"]), random.integers(-9, 10, 2), (0, 1))
            entry = {"image_id": row["image_id"], "category_id": row["category_id"], "score": round(float(random.random()), 2)}
            results.append(entry | {"segmentation": as_text(moved), "bbox": row["bbox"]})
    assert sum(row["iscrowd"] for row in dataset["annotations"]) > 0
    numbers = evaluate(tmp_path, dataset, results)
    assert numbers == pytest.approx(mask_reference(dataset, results), abs=1e-12)
    assert 0.05 < numbers["APm"] < numbers["APl"] < 0.9
    perfect = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "score": 1.0, "segmentation": row["segmentation"]}
        for row in dataset["annotations"]
    ]
    assert evaluate(tmp_path, dataset, perfect)["AP"] == pytest.approx(1)


def one_object(bitmap: np.ndarray, **fields: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": as_text(bitmap), "bbox": [0, 0, 1, 1]}
    image = {"id": 1, "height": bitmap.shape[0], "width": bitmap.shape[1], "file_name": "a.jpg"}
    return {"images": [image], "annotations": [annotation | fields], "categories": [{"id": 1, "name": "cat"}]}


def found(bitmap: np.ndarray, score: float = 0.5, **fields: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "score": score, "segmentation": as_text(bitmap)} | fields


def block(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (200, 200)) -> np.ndarray:
    bitmap = np.zeros(size, dtype=bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


def test_iou_is_that_of_the_pixels(tmp_path):
    frame = block(0, 0, 100, 100) & ~block(10, 10, 90, 90)  # its box is the block's, its mask 36 % of it
    numbers = evaluate(tmp_path, one_object(frame), [found(block(0, 0, 100, 100))])
    assert numbers["AP50"] == 0
    numbers = evaluate(tmp_path, one_object(block(0, 0, 10, 100)), [found(block(0, 0, 10, 62))])
    assert numbers["AP50"] == pytest.approx(1) and numbers["AP"] == pytest.approx(0.3)  # IoU 0.62: 0.5, 0.55, 0.6


def test_an_object_is_as_large_as_annotated_and_a_detection_as_its_mask(tmp_path):
    large = block(0, 0, 100, 100)
    numbers = evaluate(tmp_path, one_object(large, area=900), [found(large, bbox=[0, 0, 1, 1])])
    assert numbers["APs"] == pytest.approx(1) and numbers["APm"] == numbers["APl"] == -1
    dataset = one_object(large)  # no area: the mask's, 10,000
    assert evaluate(tmp_path, dataset, [found(large)])["APl"] == pytest.approx(1)
    # A false detection counts where its own mask is large, however small the box that its program wrote beside it.
    wrong = found(block(0, 100, 100, 200), 0.9, bbox=[100, 0, 5, 5])
    numbers = evaluate(tmp_path, dataset, [wrong, found(large)])
    assert numbers["APl"] == pytest.approx(0.5)
    assert numbers == pytest.approx(
        mask_reference(
            dataset | {"annotations": [dataset["annotations"][0] | {"area": 10_000, "iscrowd": 0}]}, [wrong, found(large)]
        )
    )
    speck = found(block(0, 190, 10, 200), 0.9, bbox=[0, 0, 200, 200])
    assert evaluate(tmp_path, dataset, [speck, found(large)])["APl"] == pytest.approx(1)


def test_a_detection_within_a_crowd_is_ignored(tmp_path):
    dataset = one_object(block(0, 0, 50, 50))
    crowd = {**dataset["annotations"][0], "id": 2, "iscrowd": 1, "segmentation": as_numbers(block(100, 0, 200, 200))}
    dataset["annotations"].append(crowd)
    inside, outside = found(block(120, 20, 140, 40), 0.9), found(block(60, 60, 80, 80), 0.9)
    assert evaluate(tmp_path, dataset, [inside, found(block(0, 0, 50, 50))])["AP"] == pytest.approx(1)
    assert evaluate(tmp_path, dataset, [outside, found(block(0, 0, 50, 50))])["AP"] == pytest.approx(0.5)


def test_nothing_found_and_nothing_to_find(tmp_path):
    dataset = one_object(block(0, 0, 50, 50))
    assert evaluate(tmp_path, dataset, [])["AP"] == 0
    assert set(evaluate(tmp_path, {**dataset, "annotations": []}, [found(block(0, 0, 9, 9))]).values()) == {-1.0}


def test_a_mask_without_a_pixel_is_never_found(tmp_path, caplog):
    empty = block(0, 0, 0, 0)
    dataset = one_object(empty, area=0.0, iscrowd=0)
    assert evaluate(tmp_path, dataset, [found(empty)]) == mask_reference(dataset, [found(empty)])
    assert "1 objects have a mask without a pixel; they count as never found, as in pycocotools" in caplog.text


def test_boxes_of_the_same_files_are_what_they_were(tmp_path):
    dataset, results = random_scene(1)
    boxed = [each | {"bbox": [0, 0, 5, 5]} for each in results]
    files = write(tmp_path, dataset, boxed)
    numbers = evaluate_coco_files(*files)
    assert numbers == pytest.approx(reference(dataset, [{**each, "segmentation": []} for each in boxed]), abs=1e-12)
    assert numbers == evaluate_coco_results(dataset, boxed).numbers != evaluate(tmp_path, dataset, boxed)


def test_what_is_read_is_small(tmp_path):
    """Of a file's masks the texts stay and nothing else: neither the polygons nor bitmaps."""
    dataset, results = random_scene(2)
    annotations, detections = write(tmp_path, dataset, results)
    read = read_annotations(annotations, "masks")
    assert {type(each["segmentation"]["counts"]) for each in read["annotations"]} == {bytes}
    read_back = read_results(detections, read, "masks")
    assert [set(each) for each in read_back] == [{"image_id", "category_id", "score", "segmentation"}] * len(results)
    assert {type(each["segmentation"]["counts"]) for each in read_back} == {bytes}


SQUARE = block(10, 10, 60, 60)
Change = Callable[[dict[str, Any], list[dict[str, Any]]], None]


def in_results(**fields: Any) -> Change:
    return lambda dataset, results: results[1].update(fields)


def in_annotation(**fields: Any) -> Change:
    return lambda dataset, results: dataset["annotations"][0].update(fields)


def in_image(**fields: Any) -> Change:
    return lambda dataset, results: dataset["images"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda dataset, results: results[1].pop("segmentation"), r"results\.json: results\[1\] has no 'segmentation'$"),
        (in_results(segmentation=None), r"results\[1\]: 'segmentation' cannot be used: a mask must be a list of polygons"),
        (in_results(segmentation=[[0, 0, 9, 9]]), "found 4 numbers, which pycocotools would take for a box"),
        (in_results(segmentation={"size": [10**9, 10**9], "counts": "0"}), r"'size' must be that of its image, \[200, 200\]"),
        (in_results(segmentation={"size": [200, 200], "counts": [-1, 40001]}), "must be whole numbers from 0 on"),
        (in_results(segmentation={"size": [200, 200], "counts": "abc"}), "'counts' must be|'counts' stand for"),
        (in_results(score="high"), r"results\[1\]: 'score' must be a finite number, found 'high'"),
        (in_results(image_id=9), r"results\[1\] is of image 9, which the annotations do not hold"),
        (in_results(category_id=9), r"results\[1\] is of category 9, which is not defined"),
        (
            lambda dataset, results: results.append(3),
            "must be an object with image_id, category_id, segmentation, score, found 3",
        ),
        (
            lambda dataset, results: dataset["annotations"][0].pop("segmentation"),
            "annotations.json: annotation 1 of a.jpg has no 'segmentation': its file can be used to compare boxes, not masks",
        ),
        (in_image(height=None), r"annotations\.json: image 1 must have its 'height' and 'width', whole .* found None and 200"),
        (in_image(width=0), "found 200 and 0"),
        (in_image(width="200"), "found 200 and '200'"),
        (in_annotation(iscrowd=2), "'iscrowd' must be 0 or 1, found 2"),
    ],
)
def test_faults_are_one_line(tmp_path, change, message):
    dataset, results = one_object(SQUARE), [found(SQUARE), found(SQUARE)]
    change(dataset, results)
    with pytest.raises(DatasetError, match=message) as caught:
        evaluate(tmp_path, dataset, results)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "segmentation",
    [[], [[0, 0, 9, 9]], [[0, 0, 9, 9, float("nan"), 3]], {"size": [9, 9], "counts": [81]}, "text", {"size": [200, 200]}],
)
def test_an_object_whose_mask_cannot_be_used_is_left_out_and_said(tmp_path, caplog, segmentation):
    dataset = one_object(SQUARE)
    dataset["annotations"].append(copy.deepcopy(dataset["annotations"][0]) | {"id": 2, "segmentation": segmentation})
    assert evaluate(tmp_path, dataset, [found(SQUARE)])["AR100"] == pytest.approx(1)
    assert "1 x mask that cannot be used, dropped; the first: " in caplog.text
    assert "annotations.json: annotation 2 of a.jpg: " in caplog.text


def test_an_image_that_is_too_large_for_masks_is_one_line(tmp_path):
    dataset = one_object(SQUARE)
    dataset["images"].append({"id": 2, "height": 10**9, "width": 10**9})
    bomb = {"size": [10**9, 10**9], "counts": [10**18]}
    with pytest.raises(DatasetError, match=r"results\[0\]: 'segmentation' cannot be used: .* found 1000000000 x 1000000000"):
        evaluate(tmp_path, dataset, [found(SQUARE, image_id=2, segmentation=bomb)])
