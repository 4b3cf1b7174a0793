"""eval-coco and eval-voc: what can be refused is refused before the first image; files are written before anything may fail."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detection.cli.commands import eval_coco, eval_voc
from detection.cli.main import main
from detection.evaluation.detection_files import write_voc_detections
from tests.cli.trained import write_checkpoint, write_trained
from tests.data.pictures import CLASSES, coco_content, write_coco
from tests.evaluation.scenes import make_detections


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A detector's checkpoint, and data in VOC's format."""
    return write_trained(tmp_path)


@pytest.fixture
def coco(trained: Path) -> Path:
    """The same detector for a COCO file, instances.json."""
    write_coco(trained)
    values = yaml.safe_load((trained / "config.yaml").read_text())
    source = {"format": "coco", "root": str(trained), "annotations": "instances.json", "images": "images"}
    values["data"].update(classes=list(CLASSES), test=[source])
    (trained / "config.yaml").write_text(yaml.safe_dump(values))
    write_checkpoint(trained / "best.pt", trained / "config.yaml")
    return trained


@pytest.fixture
def no_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test fails where a command runs its model."""

    def fail(*_: Any) -> None:
        raise AssertionError("an image was looked at")

    monkeypatch.setattr(eval_coco, "predict_split", fail)
    monkeypatch.setattr(eval_voc, "predict_split", fail)


def refused(folder: Path, command: str, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--weights", str(folder / "best.pt"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.usefixtures("no_inference")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("eval-coco", "--json"),
        ("eval-coco", "--write-detections"),
        ("eval-coco", "--report"),
        ("eval-voc", "--json"),
        ("eval-voc", "--write-detections"),
        ("eval-voc", "--report"),
    ],
)
def test_a_target_that_cannot_be_written(trained, command, option, capsys):
    (trained / "file").touch()
    is_file = option == "--json" or (command, option) == ("eval-coco", "--write-detections")
    places = [trained / "file/below", trained / ("x" * 300), *([trained, Path("/dev/null")] if is_file else [trained / "file"])]
    for place in places:
        assert option in refused(trained, command, option, str(place), capsys=capsys)
    assert (trained / "file").read_bytes() == b"" and not Path("/dev/null").is_file()


UNUSABLE: list[tuple[str, str, Any, str]] = [
    ("annotations", "iscrowd", "no", "'iscrowd' must be 0 or 1, found 'no'"),
    ("annotations", "image_id", "1", "it is the number 1 there"),
    ("annotations", "category_id", None, "'category_id' must be a whole number or text, found None"),
    ("categories", "name", "", "'name' must be text, found ''"),
    ("categories", "id", 90, "id 90 is used twice"),
    ("images", "id", 2, "lists 1 image ids more than once"),
]


@pytest.mark.usefixtures("no_inference")
@pytest.mark.parametrize("command", ["eval-coco", "eval-voc"])
def test_annotations_that_cannot_be_used(coco, command, capsys):
    for listed, key, value, message in UNUSABLE:
        content = coco_content()
        content[listed][0][key] = value
        (coco / "instances.json").write_text(json.dumps(content))
        assert message in refused(coco, command, capsys=capsys)


@pytest.mark.usefixtures("no_inference")
def test_class_names_and_image_ids_that_no_detection_file_can_have(coco, capsys):
    content = coco_content()
    for image in content["images"]:
        image["id"] = f" {image['id']}"
    content["annotations"] = []
    (coco / "instances.json").write_text(json.dumps(content))
    found = refused(coco, "eval-voc", "--write-detections", str(coco / "found"), capsys=capsys)
    assert "image id ' 1' cannot be a word of a line" in found and not (coco / "found").exists()
    content["categories"][0]["name"] = "a/b"
    (coco / "instances.json").write_text(json.dumps(content))
    values = yaml.safe_load((coco / "config.yaml").read_text())
    values["data"]["classes"] = ["cat", "a/b"]
    (coco / "config.yaml").write_text(yaml.safe_dump(values))
    write_checkpoint(coco / "best.pt", coco / "config.yaml")
    found = refused(coco, "eval-voc", "--write-detections", str(coco / "found"), capsys=capsys)
    assert "class 'a/b' cannot be part of a file name" in found


@pytest.mark.usefixtures("no_inference")
def test_nothing_to_measure_is_said_at_once(trained, capsys):
    for file in (trained / "data/Annotations").glob("*.xml"):
        file.write_text("<annotation/>")
    assert "there is nothing to measure" in refused(trained, "eval-voc", capsys=capsys)
    for file in (trained / "data/Annotations").glob("*.xml"):
        file.unlink()
    config = ["--config", str(trained / "config.yaml"), "data.test.0.annotated=false"]
    assert "the split has no annotations" in refused(trained, "eval-coco", *config, capsys=capsys)


def test_one_file_for_two_things_is_refused(trained, capsys):
    file = str(trained / "out.json")
    assert "--json and --write-detections are one file" in refused(
        trained, "eval-coco", "--json", file, "--write-detections", file, capsys=capsys
    )
    assert main(["eval-coco", "--annotations", file, "--detections", str(trained / "r.json"), "--json", file]) == 2
    assert "--annotations and --json are one file" in capsys.readouterr().err


def test_results_do_not_replace_a_devkit_or_its_detections(trained, capsys):
    found = trained / "found"
    write_voc_detections(found, {}, CLASSES, split="test")
    devkit = ["eval-voc", "--devkit", str(trained / "data"), "--split", "test", "--detections", str(found)]
    for place in (trained / "data/ImageSets/Main/test.txt", found / "comp4_det_test_cat.txt"):
        before = place.read_bytes()
        assert main([*devkit, "--json", str(place)]) == 2
        assert "--json would replace" in capsys.readouterr().err and place.read_bytes() == before
    for name in ("--write-detections", "--report"):
        message = refused(trained, "eval-voc", "--json", str(trained / "new"), name, str(trained / "new"), capsys=capsys)
        assert "are one file" in message


@pytest.mark.parametrize("command", ["eval-coco", "eval-voc"])
def test_detections_are_there_although_the_metrics_fail(coco, command, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError("no metrics")

    monkeypatch.setattr("detection.evaluation.coco.evaluate_coco_results", fail)
    monkeypatch.setattr("detection.evaluation.split.as_voc_evaluation", fail)
    place = coco / "found"
    with pytest.raises(RuntimeError, match="no metrics"):
        main([command, "--weights", str(coco / "best.pt"), "--write-detections", str(place)])
    files = [place] if command == "eval-coco" else list(place.iterdir())
    assert len(files) == (1 if command == "eval-coco" else 2) and all(file.is_file() for file in files)


@pytest.mark.parametrize(("command", "table"), [("eval-coco", "coco_table"), ("eval-voc", "voc_table")])
def test_json_is_there_although_the_table_fails(coco, command, table, monkeypatch):
    def fail(*_: Any) -> None:
        raise RuntimeError("no table")

    monkeypatch.setattr(f"detection.analysis.tables.{table}", fail)
    with pytest.raises(RuntimeError, match="no table"):
        main([command, "--weights", str(coco / "best.pt"), "--json", str(coco / "out.json")])
    assert json.loads((coco / "out.json").read_text())


def test_a_split_without_annotations_is_detected_in_for_others(trained, capsys):
    for file in (trained / "data/Annotations").glob("*.xml"):
        file.unlink()
    config = ["--config", str(trained / "config.yaml"), "data.test.0.annotated=false"]
    assert main(["eval-coco", *config, "--write-detections", str(trained / "found.json")]) == 0
    assert json.loads((trained / "found.json").read_text())
    assert "no annotations" in capsys.readouterr().out


def test_files_written_for_a_coco_file_are_evaluated_by_it(coco, capsys):
    """Detections under the ids of the file give the numbers of the run that wrote them."""
    options = ["--weights", str(coco / "best.pt"), "--json", str(coco / "out.json"), "--write-detections", str(coco / "r.json")]
    assert main(["eval-coco", *options]) == 0
    first = json.loads((coco / "out.json").read_text())
    files = ["--annotations", str(coco / "instances.json"), "--detections", str(coco / "r.json")]
    assert main(["eval-coco", *files, "--json", str(coco / "again.json")]) == 0
    assert json.loads((coco / "again.json").read_text()) == first


@pytest.mark.usefixtures("no_inference")
@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("eval-coco", "--json", "instances.json"),
        ("eval-coco", "--write-detections", "instances.json"),
        ("eval-coco", "--json", "config.yaml"),
        ("eval-voc", "--json", "config.yaml"),
    ],
)
def test_an_output_never_replaces_a_file_of_the_run_or_of_the_data(coco, command, option, name, capsys):
    before = (coco / name).read_bytes()
    assert f"{option} would replace" in refused(coco, command, option, str(coco / name), "test.flip=true", capsys=capsys)
    assert (coco / name).read_bytes() == before


@pytest.mark.usefixtures("no_inference")
def test_an_output_never_replaces_an_annotation(trained, capsys):
    file = next((trained / "data/Annotations").glob("*.xml"))
    assert "--json would replace" in refused(trained, "eval-voc", "--json", str(file), capsys=capsys)


def test_what_an_image_does_not_know_is_written_but_not_counted(trained, monkeypatch):
    """All three images know cats alone; the detector finds each cat, and surer a dog where there is none and one that is."""
    found = make_detections([(5, 5, 40, 60), (120, 120, 180, 180), (30, 0, 90, 30)], [0.5, 0.9, 0.8], [0, 1, 1])
    for command in (eval_coco, eval_voc):
        monkeypatch.setattr(
            command, "predict_split", lambda model, weights, records, _: {each.image_id: found for each in records}
        )
    known = ["--weights", str(trained / "best.pt"), "data.test.0.known_classes=[cat]"]
    output = {command: trained / f"{command}.json" for command in ("eval-coco", "eval-voc")}
    assert main(["eval-coco", *known, "--json", str(output["eval-coco"]), "--write-detections", str(trained / "all.json")]) == 0
    assert main(["eval-voc", *known, "--json", str(output["eval-voc"]), "--write-detections", str(trained / "all")]) == 0
    coco, voc = (json.loads(file.read_text()) for file in output.values())
    assert coco["AP"] == pytest.approx(1) and voc["AP"] == {"cat": 1}
    assert len(json.loads((trained / "all.json").read_text())) == 9
    assert len((trained / "all/comp4_det_test_dog.txt").read_text().splitlines()) == 6
