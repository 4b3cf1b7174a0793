"""resdet eval-ilsvrc det of a model: the kit's rules, and a submission that gives the same numbers again."""

import json
from pathlib import Path

import pytest

from detection.cli.commands import eval_ilsvrc_det
from detection.cli.main import main
from detection.evaluation.ilsvrc_records import evaluate_det_records
from detection.evaluation.split import load_evaluation_split
from detection.inference.dataset import predict_dataset
from detection.inference.detector import load_detector
from tests.cli.trained import write_checkpoint, write_trained
from tests.evaluation.ilsvrc_tree import write_det
from tests.evaluation.scenes import make_detections

# Class 0 is "dog", class 1 "big cat". In c "dog" is not evaluated; the first in a takes the only object that there is of it.
FOUND = {
    "a": make_detections([(9, 9, 20, 20), (30, 1, 180, 5), (0, 1, 201, 5)], [0.3, 0.9, 0.7], [0, 1, 1]),
    "b": make_detections([(50, 9, 70, 20)], [0.7], [0]),
    "c": make_detections([(9, 9, 20, 20)], [0.8], [0]),
}
NUMBERS = {"mAP": 0.75, "median_AP": 0.75, "AP": {"dog": 0.5, "big cat": 1.0}}


@pytest.fixture(scope="module")
def trained(module_path) -> Path:
    """ILSVRC, and config.yaml and best.pt of a detector with random weights."""
    root = write_det(module_path / "ILSVRC")
    (module_path / "config.yaml").write_text(f"""
        model: {{backbone: resnet18}}
        rpn: {{channels: 16, anchor_sizes: [32], post_nms_test: 20, min_size: 2}}
        roi: {{pool_size: 2}}
        data: {{classes: [dog, big cat], test: [{{format: ilsvrc_det, root: {root}, split: val}}], workers: 0}}
        test: {{shorter_side: 64, longer_side: 128, score_threshold: 0.0}}
        output_dir: {module_path}
    """)
    write_checkpoint(module_path / "best.pt", module_path / "config.yaml")
    return module_path


def evaluate(trained: Path, *more: str) -> int:
    return main(["eval-ilsvrc", "det", "--config", str(trained / "config.yaml"), *more])


def evaluate_files(trained: Path, file: Path, *more: str) -> int:
    return main(["eval-ilsvrc", "det", "--detections", str(file), "--devkit", str(trained / "ILSVRC/devkit"), *more])


def test_known_detections_have_known_numbers(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_ilsvrc_det, "predict_split", lambda *_: FOUND)
    model, files = tmp_path / "model.json", tmp_path / "files.json"
    assert evaluate(trained, "--json", str(model), "--write-detections", str(tmp_path / "det.txt")) == 0
    assert json.loads(model.read_text()) == NUMBERS
    shown = capsys.readouterr().out
    assert "big cat" in shown and "0.7500" in shown
    for more in ([], ["--annotations", str(trained / "ILSVRC/Annotations/DET/val")]):
        assert evaluate_files(trained, tmp_path / "det.txt", "--json", str(files), *more) == 0
        assert json.loads(files.read_text()) == NUMBERS


@pytest.mark.parametrize("more", [[], ["--weights", "best.pt", "best.pt", "test.refinement_passes=1", "test.voting=true"]])
def test_a_model_and_its_submission_have_the_same_numbers(trained, tmp_path, monkeypatch, more):
    monkeypatch.chdir(trained)
    model, files = tmp_path / "model.json", tmp_path / "files.json"
    assert evaluate(trained, "--json", str(model), "--write-detections", str(tmp_path / "det.txt"), *more) == 0
    assert evaluate_files(trained, tmp_path / "det.txt", "--json", str(files)) == 0
    assert len((tmp_path / "det.txt").read_text().splitlines()) > 10
    assert json.loads(model.read_text()) == json.loads(files.read_text())
    if not more:
        detector = load_detector(trained / "best.pt", device="cpu")
        split = load_evaluation_split(detector.config)
        found = predict_dataset(detector, split.records, workers=0)
        expected = evaluate_det_records(split.records, found, split.class_names, {"c": ["dog"]})
        assert json.loads(model.read_text()) == expected.as_json()


def test_the_test_split_is_written_for_the_server(trained, tmp_path, capsys):
    test = f"data.test=[{{format: ilsvrc_det, root: {trained}/ILSVRC, split: test}}]"
    assert evaluate(trained, test) == 2
    assert "the split has no annotations to evaluate with: give --write-detections FILE" in capsys.readouterr().err
    assert evaluate(trained, test, "--write-detections", str(tmp_path / "det.txt")) == 0
    assert "the detections are for the test server" in capsys.readouterr().out
    assert {line.split()[0] for line in (tmp_path / "det.txt").read_text().splitlines()} == {"1", "2"}


def test_other_data_can_be_measured_and_not_submitted(tmp_path, capsys):
    folder = write_trained(tmp_path)
    model = ["eval-ilsvrc", "det", "--weights", str(folder / "best.pt")]
    assert main([*model, "--json", str(tmp_path / "out.json")]) == 0
    assert set(json.loads((tmp_path / "out.json").read_text())["AP"]) == {"cat", "dog"}
    assert main([*model, "--write-detections", str(tmp_path / "det.txt")]) == 2
    assert "the numbers of images that a split of ImageNet DET has" in capsys.readouterr().err
    assert not (tmp_path / "det.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detections", "x", "--weights", "y", "--devkit", "z"], "--detections evaluates files, --weights a model"),
        (["--detections", "x"], "--detections needs --devkit DIR"),
        (["--split", "val2"], "--split goes with --detections"),
        (["--annotations", "x"], "--annotations goes with --detections"),
        (["--detections", "x", "--devkit", "y", "--write-detections", "z"], "--write-detections goes with --weights"),
        (["--weights", "no.pt"], "no.pt"),
        (["--json", "a", "--write-detections", "a"], "--json and --write-detections are one file"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["eval-ilsvrc", "det", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize("option", ["--json", "--write-detections"])
def test_annotations_and_the_kit_are_not_replaced(trained, capsys, option):
    kit = trained / "ILSVRC/devkit/data/map_det.txt"
    before = kit.read_text()
    assert evaluate(trained, option, str(kit)) == 2
    assert f"{option} would replace" in capsys.readouterr().err and kit.read_text() == before


def test_files_of_the_kit_are_not_replaced_by_the_numbers_of_a_submission(trained, tmp_path, capsys):
    (tmp_path / "det.txt").write_text("1 1 0.9 0 1 200 4\n")
    assert evaluate_files(trained, tmp_path / "det.txt", "--json", str(trained / "ILSVRC/devkit/data/det_val.txt")) == 2
    assert "--json would replace" in capsys.readouterr().err


def test_a_split_without_objects_is_nothing_to_measure(trained, capsys):
    # The only image of val1 is b.
    assert evaluate(trained, f"data.test=[{{format: ilsvrc_det, root: {trained}/ILSVRC, split: val1}}]") == 2
    assert "nothing to measure" in capsys.readouterr().err
