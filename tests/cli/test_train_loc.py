"""resdet train-loc and resdet eval-ilsvrc loc of what it leaves: three classes, six images, two steps in each stage."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import build_backbone, load_checkpoint
from detection.cli.main import main
from detection.config import dump_config
from detection.data.ilsvrc_devkit import read_classes
from detection.engine.result import TrainResult
from detection.localisation.images import read_loc_images
from detection.pretraining.model import ClassificationModel
from detection.pretraining.train import PretrainResult
from detection.weights.checkpoint import CheckpointMetadata, write_checkpoint
from tests.localisation.loc_kit import make_config, write_loc
from tests.localisation.small_localiser import small_backbones
from tests.pretraining.class_folders import make_config as make_classifier_config
from tests.pretraining.class_folders import write_image

CLASSES = ("n01", "n02", "n03")


@pytest.fixture(autouse=True, scope="module")
def backbones():
    with small_backbones():
        yield


def write_config(root: Path, folder: Path) -> Path:
    config = make_config(
        root,
        folder / "run",
        model={"backbone": "narrow"},
        rpn={"anchor_sizes": [24, 48], "anchor_ratios": [1.0]},
        rcnn={"num_proposals": 3},
        test={"scales": [64], "longer_side": 160},
    )
    file = folder / "loc.yaml"
    file.write_text(dump_config(config))
    return file


def write_classifier(path: Path, seed: int = 3) -> Path:
    torch.manual_seed(seed)
    model = ClassificationModel(build_backbone("narrow", num_classes=3), CLASSES)
    about = {"model": {"backbone": "narrow", "stride_in_1x1": False}}
    metadata = CheckpointMetadata("classifier", CLASSES, model.backbone.preprocessing, about)
    write_checkpoint(metadata, model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def trained(module_path):
    """The folder of a run that began with a classifier: loc.yaml, classifier.pt, run/."""
    config = write_config(write_loc(module_path / "loc"), module_path)
    classifier = write_classifier(module_path / "classifier.pt")
    assert main(["train-loc", str(config), "--weights", str(classifier)]) == 0
    return module_path


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_table_is_shown_beside_the_papers(trained, capsys):
    assert run("train-loc", "--config", trained / "loc.yaml", "--resume") == 0
    shown = capsys.readouterr().out
    for title in ("all of the image", "centre box of mean size", "RPN, centre view", "RPN, dense", "RPN + R-CNN, dense"):
        assert title in shown
    rows = json.loads((trained / "run/results.json").read_text())["rows"]
    assert f"{100 * rows[2]['gt_class_error']:.2f} (13.3)" in shown and "(14.4)" in shown and "(10.6)" in shown


def write_truth(root: Path, config) -> None:
    """The kit's .mat file of all validation images, by the kit's own ids."""
    savemat = pytest.importorskip("scipy.io").savemat
    images = read_loc_images(config.data, config.data.val)
    kit = read_classes(root / "devkit/data/map_clsloc.txt").labels
    box = np.dtype([("label", object), ("bbox", object)])
    records = []
    for index in range(len(images)):
        label = kit[images.class_names[images.labels[index]]] + 1
        corners = (images.boxes_of(index) - torch.tensor([0.0, 0, 1, 1])).numpy().astype(np.uint16)
        records.append((np.array([[(label, each[None]) for each in corners]], box),))
    record = np.array(records, dtype=[("objects", object)])[:, None]
    savemat(root / "devkit/data/ILSVRC2015_clsloc_validation_ground_truth.mat", {"rec": record})


def test_the_submitted_file_has_the_numbers_of_the_localisers(trained, tmp_path, capsys):
    write_truth(trained / "loc", make_config(trained / "loc"))
    common = ("eval-ilsvrc", "loc", "--config", trained / "loc.yaml", "--classifier", trained / "classifier.pt")
    assert run(*common, "--output", tmp_path / "loc.txt", "--json", tmp_path / "ours.json") == 0
    shown = capsys.readouterr().out
    assert "error of the true class's box" in shown and "localisation" in shown
    devkit = trained / "loc/devkit"
    assert (
        run("eval-ilsvrc", "loc", "--detections", tmp_path / "loc.txt", "--devkit", devkit, "--json", tmp_path / "file.json")
        == 0
    )
    ours, of_file = (json.loads((tmp_path / name).read_text()) for name in ("ours.json", "file.json"))
    assert ours["guesses"] == of_file and ours["images"] == 6
    # The kit's ids, not the places among the WNIDs: n03 is the kit's first.
    kit = read_classes(devkit / "data/map_clsloc.txt")
    first = (tmp_path / "loc.txt").read_text().splitlines()[0].split()
    assert sorted(int(label) for label in first[::5]) == [1, 2, 3] and kit.wnids == ("n03", "n01", "n02")
    rows = json.loads((trained / "run/results.json").read_text())["rows"]
    assert rows[-1]["gt_class_error"] == ours["gt_class_error"]
    assert rows[-1]["localisation_error"] == ours["guesses"]["localisation_error"][-1]


def test_the_rpn_alone_and_ensembles(trained, tmp_path):
    best = [trained / "run" / stage / "best.pt" for stage in ("rpn", "rcnn")]
    assert run("eval-ilsvrc", "loc", "--weights", best[0], "--json", tmp_path / "rpn.json") == 0
    rows = json.loads((trained / "run/results.json").read_text())["rows"]
    assert json.loads((tmp_path / "rpn.json").read_text()) == {
        "images": 6,
        "gt_class_error": rows[3]["gt_class_error"],
        "guesses": None,
    }
    several = ("--weights", best[0], best[0], "--rcnn", best[1], best[1], "test.batch_size=2")
    assert run("eval-ilsvrc", "loc", *several, "--json", tmp_path / "two.json") == 0
    assert json.loads((tmp_path / "two.json").read_text())["gt_class_error"] == rows[4]["gt_class_error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loc",), "what is to be evaluated?"),
        (("loc", "--detections", "x.txt"), "--detections needs --devkit DIR"),
        (
            ("loc", "--detections", "x.txt", "--devkit", "d", "--rcnn", "r.pt"),
            "--detections evaluates files, --rcnn localisers",
        ),
        (("loc", "--config", "loc.yaml", "--devkit", "d"), "--devkit goes with --detections"),
        (("loc", "--config", "loc.yaml", "--output", "new.txt"), "give --classifier FILE"),
        (("loc", "--config", "loc.yaml", "--weights", "classifier.pt"), "is a classifier's checkpoint; a loc_rpn's is needed"),
        (("loc", "--config", "loc.yaml", "output_dir=none"), "train it first, or give --weights FILE"),
        (("loc", "--config", "loc.yaml", "--json", "run/rpn/best.pt"), "--json would replace 'run/rpn/best.pt'"),
        (
            ("loc", "--config", "loc.yaml", "--json", "loc/ImageSets/CLS-LOC/val.txt"),
            "--json would replace 'loc/ImageSets/CLS-LOC/val.txt'",
        ),
        (
            ("loc", "--config", "loc.yaml", "--classifier", "classifier.pt", "--output", "loc/devkit/data/map_clsloc.txt"),
            "--output would replace 'loc/devkit/data/map_clsloc.txt'",
        ),
        (("loc", "--config", "loc.yaml", "test.vews=dense"), "did you mean 'test.views'"),
    ],
)
def test_what_does_not_go_together_is_refused(trained, monkeypatch, capsys, words, message):
    monkeypatch.chdir(trained)
    before = {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()}
    assert run("eval-ilsvrc", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert {file: file.stat().st_mtime_ns for file in trained.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "holds another run (last.pt)"),
        (("--weights", "nowhere.pt", "output_dir=new"), "nowhere.pt"),
        (("--pretrain", "loc.yaml", "--weights", "classifier.pt", "output_dir=new"), "give one of the two"),
        (("data.train.list=missing", "output_dir=new"), "missing.txt"),
        (("--resume", "output_dir=new"), "nothing to resume"),
    ],
)
def test_mistakes_are_one_line(trained, monkeypatch, capsys, words, message):
    monkeypatch.chdir(trained)
    assert run("train-loc", "loc.yaml", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (trained / "new").exists()


@pytest.mark.parametrize("folder", ["new", "new/rpn", "new/proposals", "new/rcnn"])
def test_a_classifier_has_no_folder_of_a_stage(trained, tmp_path, monkeypatch, capsys, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classifier.yaml").write_text(f"output_dir: {folder}")
    assert run("train-loc", trained / "loc.yaml", "--pretrain", "classifier.yaml", "output_dir=new") == 2
    assert f"output_dir of classifier.yaml is {folder}, where a run lies" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_classifier_that_is_stopped_goes_on_by_the_same_command(trained, tmp_path, monkeypatch, capsys):
    """With --resume it would be the localiser that goes on, which has not begun."""
    monkeypatch.chdir(tmp_path)
    stopped = TrainResult(3, {}, None, 1.0, Path("classifier"), signal=15)
    monkeypatch.setattr(
        "detection.pretraining.train_classifier", lambda *_, **__: PretrainResult(Path("classifier/model.pt"), {}, stopped)
    )
    (tmp_path / "classifier.yaml").write_text("output_dir: classifier")
    assert run("train-loc", trained / "loc.yaml", "--pretrain", "classifier.yaml", "output_dir=new") == 143
    assert "stopped at the classifier's step 3; to go on, give the same command again" in capsys.readouterr().out


def test_the_classifier_may_be_trained_first(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            write_image(tmp_path / "crops" / split / name / "0.png", (80 * number, 90, 100), number)
    classifier = make_classifier_config(
        tmp_path / "crops", tmp_path / "classifier", model={"backbone": "narrow"}, train={"steps": 1, "batch_size": 2}
    )
    (tmp_path / "classifier.yaml").write_text(dump_config(classifier))
    words = ("train-loc", trained / "loc.yaml", "--pretrain", "classifier.yaml", "output_dir=run")
    assert run(*words) == 0
    assert load_checkpoint(tmp_path / "run/rcnn/last.pt")["metadata"]["config"]["model"]["weights"].endswith("model.pt")
    rows = json.loads((tmp_path / "run/results.json").read_text())["rows"]
    assert all(row["classification_error"] == 0.0 for row in rows)
