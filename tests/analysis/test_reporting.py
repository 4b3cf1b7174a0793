"""What a person may name for a report: each kind gives the same detections and ground truth, and each mistake one line."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.analysis.report_truth import TruthFiles
from detection.analysis.reporting import load_reported
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.evaluation.coco import records_as_coco
from detection.evaluation.detection_files import coco_results, write_voc_detections
from detection.files import write_json
from detection.inference.evaluate import evaluate_detections
from detection.report.reported import ReportedDetector
from tests.cli.trained import write_checkpoint, write_trained
from tests.evaluation.scenes import make_record, write_devkit


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run, and its detections and ground truth in each form in which they may be named."""
    folder = write_trained(tmp_path_factory.mktemp("made"))
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 5, "loss": 1.5}\n')
    write_findable(folder / "data", load_reported([folder])[0])
    (one,) = load_reported([folder])
    ids = {name: 10 * (label + 1) for label, name in enumerate(one.class_names)}
    write_json(folder / "results.json", coco_results(one.detections, one.class_names, ids))
    write_json(folder / "of config.json", coco_results(one.detections, one.class_names, {"cat": 0, "dog": 1}))
    write_voc_detections(folder / "detections", one.detections, one.class_names)
    write_json(folder / "instances.json", as_annotations(one, ids))
    report = folder / "a report"
    report.mkdir()
    shutil.copy(folder / "instances.json", report / "annotations.json")
    shutil.copy(folder / "results.json", report / "detections.json")
    return folder


@pytest.fixture(scope="module")
def run(made) -> ReportedDetector:
    return load_reported([made])[0]


def write_findable(devkit: Path, one: ReportedDetector) -> None:
    """Some of what was found as the ground truth, so that no metric is zero."""
    records = []
    for record in one.dataset.records:
        found = one.detections[record.image_id][::3]
        corners = torch.cat([found.boxes[:, :2].floor(), found.boxes[:, 2:].ceil()], dim=1)
        records.append(make_record(record.image_id, corners.tolist(), found.labels.tolist()))
    shutil.rmtree(devkit / "Annotations")
    shutil.rmtree(devkit / "ImageSets")
    write_devkit(devkit, records, one.class_names)


def as_annotations(one: ReportedDetector, ids: Mapping[str, int]) -> dict[str, Any]:
    """The ground truth as an annotation file, its classes in another order than the config's."""
    truth = records_as_coco(one.dataset.records, one.class_names)
    for image, record in zip(truth["images"], one.dataset.records, strict=True):
        image |= {"file_name": record.file.name, "height": 200, "width": 200}
    for annotation in truth["annotations"]:
        annotation["category_id"] = ids[one.class_names[annotation["category_id"]]]
    return truth | {"categories": [{"id": ids[name], "name": name} for name in reversed(one.class_names)]}


FORMS: dict[str, Callable[[Path], list[ReportedDetector]]] = {
    "run": lambda made: load_reported([made]),
    "checkpoint": lambda made: load_reported([made / "best.pt"]),
    "results and annotations": lambda made: load_reported(
        [made / "results.json"], truth=TruthFiles(annotations=made / "instances.json", images=made / "data/JPEGImages")
    ),
    "results and a config": lambda made: load_reported([made / "of config.json"], config=made / "config.yaml"),
    "kit's files and a devkit": lambda made: load_reported([made / "detections"], truth=TruthFiles(devkit=made / "data")),
    "kit's files and a config": lambda made: load_reported([made / "detections"], config=made / "config.yaml"),
    "report": lambda made: load_reported([made / "a report"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_numbers(made, run, form):
    (one,) = FORMS[form](made)
    assert sorted(one.class_names) == ["cat", "dog"] and set(one.detections) == {"im0", "im1", "im2"}
    assert one.metrics == pytest.approx(run.metrics, abs=1e-6) and run.metrics["AP"] > 0.1
    assert one.class_ap["AP"] == pytest.approx(run.class_ap["AP"], abs=1e-6)
    assert one.metrics == evaluate_detections(one.dataset, one.detections).metrics
    assert {record.size_hw for record in one.dataset.records} == {(200, 200)}
    for image, found in run.detections.items():
        torch.testing.assert_close(one.detections[image].boxes.float(), found.boxes, rtol=0, atol=1e-4)


def test_what_is_known_beside_the_detections(made, run):
    (file,) = FORMS["results and a config"](made)
    assert run.label == str(made) and run.run is not None and run.run.training["loss"].values == [1.5]
    assert run.latency is not None and run.latency.device.startswith("CPU") and run.latency.seconds_per_image > 0
    assert file.latency is None and file.run is None
    for name, there in (("results and annotations", True), ("kit's files and a devkit", True), ("report", False)):
        assert {record.file.is_file() for record in FORMS[name](made)[0].dataset.records} == {there}


def test_several_are_measured_on_the_ground_truth_of_the_first(made):
    heard = []
    names = [made / "results.json", made, made / "detections"]
    truth = TruthFiles(annotations=made / "instances.json", devkit=made / "data")
    three = load_reported(names, truth=truth, progress=lambda *each: heard.append(each))
    assert all(each.dataset is three[0].dataset for each in three)
    for each in three[1:]:
        assert each.metrics == pytest.approx(three[0].metrics, abs=1e-6)
        for image, found in three[0].detections.items():
            assert each.detections[image].labels.tolist() == found.labels.tolist()
    assert heard[-1] == (str(made), 3, 3)


def test_a_config_changes_detectors_and_overrides_do(made):
    (few,) = load_reported([made], overrides=["test.max_detections=1"])
    assert max(map(len, few.detections.values())) == 1
    (none,) = load_reported([made / "best.pt"], config=made / "config.yaml", overrides=["test.score_threshold=1"])
    assert not any(map(len, none.detections.values()))


def test_a_log_that_cannot_be_read_is_told_and_left_out(made, tmp_path):
    shutil.copy(made / "best.pt", tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    told: list[str] = []
    (one,) = load_reported([tmp_path], tell=told.append)
    assert one.run is None and told == [f"no training curves: {tmp_path}/metrics.jsonl has no records yet"]


def test_classes_without_a_file_are_told(made, tmp_path):
    (tmp_path / "comp4_det_test_cow.txt").write_text("im0 0.5 1 1 20 20\n")
    shutil.copy(made / "detections/comp4_det_test_cat.txt", tmp_path)
    told: list[str] = []
    (one,) = load_reported([tmp_path], truth=TruthFiles(devkit=made / "data"), tell=told.append)
    assert one.class_names == ("cat", "dog", "cow")
    assert told == [f"'{tmp_path}' has no detection file for: dog; they count as never found"]
    with pytest.raises(DatasetError, match="has detections of 'cow', which is no class of the config"):
        load_reported([tmp_path], config=made / "config.yaml")


def test_sizes_come_from_the_pictures_or_the_boxes_where_annotations_have_none(made, run, tmp_path):
    shutil.copytree(made / "data", tmp_path / "data")
    for file in (tmp_path / "data/Annotations").iterdir():
        file.write_text(file.read_text().replace("<width>200", "<width>0").replace("<height>200", "<height>0"))
    names, truth = [made / "detections"], TruthFiles(devkit=tmp_path / "data")
    assert load_reported(names, truth=truth)[0].dataset.records[0].size_hw == (200, 200)
    shutil.rmtree(tmp_path / "data/JPEGImages")
    right, bottom = run.dataset.records[0].boxes[:, 2:].amax(dim=0).int().tolist()
    expected = (bottom, right)
    assert load_reported(names, truth=truth)[0].dataset.records[0].size_hw == expected


def changed(folder: Path, change: Callable[[dict], None]) -> TruthFiles:
    """The annotations with a change, as a file of their own."""
    content = json.loads((folder / "instances.json").read_text())
    change(content)
    write_json(folder / "changed.json", content)
    return TruthFiles(annotations=folder / "changed.json")


def load(*names, **more):
    return lambda made: load_reported([made / name for name in names], **more)


MISTAKES = [
    (load("data"), DatasetError, "/data' is no run (it has no best.pt or last.pt), no folder of detection files"),
    (load("none.pt"), CheckpointError, "none.pt"),
    (load("none.json", truth=TruthFiles(annotations=Path("none.json"))), DatasetError, "cannot read none.json"),
    (load("results.json"), ConfigError, "/results.json' holds detections alone: give --annotations FILE to compare with, or"),
    (load("detections"), ConfigError, "/detections' holds detections alone: give --devkit DIR to compare with, or --config"),
    (load("best.pt", "best.pt"), ConfigError, "/best.pt' is named twice"),
    (load("best.pt", truth=TruthFiles(images=Path("x"))), ConfigError, "--images goes with a COCO result file (.json)"),
    (load("best.pt", truth=TruthFiles(year="2007")), ConfigError, "--year goes with a folder of detection files"),
    (load("a report", overrides=["test.flip=true"]), ConfigError, "'test.flip=true' changes the config of a detector"),
    (load("a report", truth=TruthFiles(annotations=Path("x"))), ConfigError, "--annotations changes nothing: "),
    (load("a report", config="x"), ConfigError, "is a report, whose folder holds its ground truth; leave it out"),
    (load("results.json", truth=TruthFiles(annotations=Path("x")), config="x"), ConfigError, "--config is not needed"),
    (
        lambda made: load(
            "results.json",
            truth=TruthFiles(annotations=made / "instances.json", images=made / "detections"),
        )(made),
        DatasetError,
        "; without a folder of images (--images) pictures may be missing",
    ),
    (load("best.pt", overrides=["data.test=[]"]), ConfigError, "set data.test or data.val"),
    (lambda made: load("results.json", truth=changed(made, lambda each: each["images"].pop()))(made), DatasetError, "im2"),
    (
        lambda made: load("results.json", truth=changed(made, lambda each: each["images"][0].pop("width")))(made),
        DatasetError,
        "changed.json does not say how large im0.jpg is, and there is no",
    ),
    (
        lambda made: load("results.json", truth=changed(made, lambda each: each.update(categories=[])))(made),
        DatasetError,
        "annotations refer to none of its categories",
    ),
]


@pytest.mark.parametrize(("act", "kind", "message"), MISTAKES)
def test_mistakes_are_one_line(made, act, kind, message):
    with pytest.raises(kind) as error:
        act(made)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_compared_is_refused_naming_both(made, tmp_path):
    write_checkpoint(tmp_path / "two.pt", made / "config.yaml", ["data.classes=[cat, dog, cow]"])
    with pytest.raises(DatasetError, match=r"best.pt' and .*two.pt' have different classes: .*best.pt' lacks 'cow'; give a"):
        load_reported([made / "best.pt", tmp_path / "two.pt"])
    (made / "data/ImageSets/Main/less.txt").write_text("im0\nim1\n")
    source = json.dumps([{"format": "voc", "root": str(made / "data"), "split": "less"}])
    write_checkpoint(tmp_path / "less.pt", made / "config.yaml", [f"data.test={source}"])
    with pytest.raises(DatasetError, match=r"best.pt' and .*less.pt' have different images: .*less.pt' lacks 'im2'"):
        load_reported([made / "best.pt", tmp_path / "less.pt"])
    both = load_reported([made / "best.pt", tmp_path / "less.pt"], config=made / "config.yaml")
    assert [len(each.detections) for each in both] == [3, 3]
