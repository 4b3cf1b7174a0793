"""tools/eval_voc.py on files and on a model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detection import evaluate, load_detector
from detection.cli.commands import eval_voc
from detection.cli.main import main, run
from detection.config import VocSource
from detection.data.catalog import load_dataset
from detection.evaluation.detection_files import write_voc_detections
from detection.evaluation.split import load_evaluation_split
from detection.inference.evaluate import evaluate_detections
from detection.masks import Masks
from detection.structures import Detections, Record
from tests.cli.trained import write_checkpoint, write_trained
from tests.evaluation import devkit
from tests.evaluation.scenes import jittered, make_detections, make_record, random_scene, write_devkit
from tests.there import there

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A devkit VOC2007 with a test split, and detections of it in `found`."""
    records, _ = random_scene(0, num_images=12)
    write_devkit(tmp_path / "VOC2007", records, NAMES)
    write_voc_detections(tmp_path / "found", jittered(records, 0, 3), NAMES)
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    return ["eval-voc", "--detections", str(folder / "found"), "--devkit", str(folder), "--year", "2007", *more]


def oracle(folder: Path, split: str, found: Path, metric: str) -> dict[str, float]:
    names = [file.stem.split("_", 3)[3] for file in sorted(found.glob("*.txt"))]
    files = {name: next(found.glob(f"*_{name}.txt")) for name in names}
    return {name: devkit.evaluate_folder(folder, split, file, name, metric) for name, file in files.items()}


@pytest.mark.parametrize("metric", ["voc07", "area"])
def test_files_equal_the_development_kit(files, metric, capsys):
    assert main(arguments(files, "--metric", metric, "--json", str(files / "out.json"))) == 0
    out = json.loads((files / "out.json").read_text())
    expected = oracle(files / "VOC2007", "test", files / "found", metric)
    assert out["AP"] == pytest.approx(expected, abs=1e-9)
    assert out["mAP"] == pytest.approx(np.mean(list(expected.values())), abs=1e-9)
    assert set(out) == {"mAP", "AP", "metric"} and out["metric"] == metric
    assert f"mAP {out['mAP']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize(("year", "title"), [("2007", "VOC07 11-point"), ("2012", "area under the curve")])
def test_the_years_own_metric_is_the_default_and_is_printed(files, year, title, capsys):
    (files / "VOC2007").rename(files / f"VOC{year}")
    assert main([*arguments(files)[:-1], year]) == 0
    assert title in capsys.readouterr().out


def test_the_devkit_may_be_the_years_folder_itself(files, capsys):
    assert main(["eval-voc", "--detections", str(files / "found"), "--devkit", str(files / "VOC2007")]) == 0
    assert "VOC07 11-point" in capsys.readouterr().out


def test_missing_class_files_are_named_and_the_mean_is_over_the_rest(files, capsys):
    (files / "found/comp4_det_test_dog.txt").unlink()
    assert main(arguments(files, "--json", str(files / "out.json"))) == 0
    out = json.loads((files / "out.json").read_text())
    assert set(out["AP"]) == {"cat", "cow"} and out["mAP"] == pytest.approx(sum(out["AP"].values()) / 2)
    assert "no detection file for: dog" in capsys.readouterr().out


def test_an_empty_class_file_counts_as_zero(files):
    (files / "found/comp4_det_test_dog.txt").write_text("")
    assert main(arguments(files, "--json", str(files / "out.json"))) == 0
    assert json.loads((files / "out.json").read_text())["AP"]["dog"] == 0


def test_a_class_without_objects_is_named_and_left_out(files, capsys):
    (files / "found/comp4_det_test_aardvark.txt").write_text("1 0.5 1 1 9 9\n")
    assert main(arguments(files, "--json", str(files / "out.json"))) == 0
    assert set(json.loads((files / "out.json").read_text())["AP"]) == set(NAMES)
    assert "no object of: aardvark" in capsys.readouterr().out


def test_the_report_has_the_numbers_of_the_kit(files, capsys):
    assert main(arguments(files, "--report", str(files / "report"), "--json", str(files / "out.json"))) == 0
    assert f"report: {files}/report/index.html" in capsys.readouterr().out and (files / "report/index.html").is_file()
    numbers = json.loads((files / "report/report.json").read_text())
    result = json.loads((files / "out.json").read_text())
    assert numbers["metrics"]["voc07"] == pytest.approx(result["mAP"], abs=1e-12)
    assert numbers["class_ap"]["voc07"] == pytest.approx(result["AP"], abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: arguments(folder, "--split", "val"), "cannot read split"),
        (lambda folder: arguments(folder, "--weights", "x.pt"), "--detections evaluates files, --weights a model"),
        (lambda folder: arguments(folder, "--write-detections", "x"), "--write-detections goes with --weights"),
        (lambda folder: ["eval-voc", "--devkit", str(folder)], "--devkit goes with --detections"),
        (lambda folder: ["eval-voc", "--detections", str(folder)], "--detections needs --devkit"),
        (lambda folder: [*arguments(folder)[:-1], "2012"], "it holds VOC2007: name the year (--year)"),
        (lambda folder: arguments(folder, "--iou-threshold", "2"), "--iou-threshold must be"),
        (lambda folder: ["eval-voc", "--weights", str(folder / "no.pt")], "no.pt"),
        (lambda folder: ["eval-voc", "--config", str(folder / "no.yaml")], "no.yaml"),
        (lambda folder: arguments(folder, "--report", str(folder)), "is not empty and holds no report"),
        (
            lambda folder: arguments(folder, "--report", str(folder / "new"), "--json", str(folder / "new/a.json")),
            "lies in the folder of --report",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(files, change, message, capsys):
    assert main(change(files)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_a_faulty_line_is_named(files, capsys):
    with (files / "found/comp4_det_test_dog.txt").open("a") as file:
        file.write("1 0.5 1 1 x 9\n")
    assert main(arguments(files)) == 2
    assert "comp4_det_test_dog.txt:" in capsys.readouterr().err


def test_nothing_to_find_is_an_error(tmp_path, capsys):
    write_devkit(tmp_path / "VOC2007", [make_record("a")], NAMES)
    write_voc_detections(tmp_path / "found", {"a": make_detections([(0, 0, 5, 5)], [0.5])}, NAMES)
    assert main(arguments(tmp_path)) == 2
    assert "none of the classes has an object" in capsys.readouterr().err


def test_without_arguments_and_quickstart_the_error_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(eval_voc.main, []) == 2
    error = capsys.readouterr().err
    assert "runs/quickstart/detector/best.pt" in error and "make run" in error


def test_bccd_equals_the_development_kit(real_data, tmp_path):
    records, names = bccd(real_data)
    write_voc_detections(tmp_path, jittered(records, 0, len(names)), names)
    for metric in ("voc07", "area"):
        options = ["--detections", str(tmp_path), "--devkit", str(real_data / "BCCD"), "--metric", metric]
        assert main(["eval-voc", *options, "--json", str(tmp_path / "out.json")]) == 0
        expected = oracle(real_data / "BCCD", "test", tmp_path, metric)
        assert json.loads((tmp_path / "out.json").read_text())["AP"] == pytest.approx(expected, abs=1e-9)


def bccd(real_data: Path) -> tuple[list[Record], tuple[str, ...]]:
    from detection.evaluation.devkit import read_devkit

    truth = read_devkit(real_data / "BCCD", "test")
    return truth.records, truth.class_names


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    return write_trained(tmp_path)


def test_a_run_without_validation_has_only_its_last_weights(trained, capsys):
    (trained / "best.pt").rename(trained / "last.pt")
    assert main(["eval-voc", "--config", str(trained / "resolved.yaml")]) == 0
    assert "last.pt" in capsys.readouterr().out


def test_an_ensemble_with_itself_and_settings_after_its_files(trained, capsys):
    weights = str(trained / "best.pt")
    results = []
    for argv in (["--weights", weights, "test.score_threshold=0"], ["--weights", weights, weights, "test.score_threshold=0"]):
        assert main(["eval-voc", *argv, "--json", str(trained / "out.json")]) == 0
        results.append(json.loads((trained / "out.json").read_text()))
    assert results[0] == results[1]
    assert f"{weights} + {weights}" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["config and weights", "weights", "config"])
def test_a_model_and_the_detections_it_writes_have_one_ap(trained, source, capsys):
    options = {
        "config and weights": ["--config", str(trained / "config.yaml"), "--weights", str(trained / "best.pt")],
        "weights": ["--weights", str(trained / "best.pt")],
        "config": ["--config", str(trained / "resolved.yaml")],
    }[source]
    out, found = trained / "out.json", trained / "found"
    assert main(["eval-voc", *options, "--json", str(out), "--write-detections", str(found)]) == 0
    assert sum(len(file.read_text()) for file in found.iterdir()) > 0
    expected = oracle(trained / "data", "test", found, "area")
    assert json.loads(out.read_text())["AP"] == pytest.approx(expected, abs=1e-9)
    again = ["eval-voc", "--detections", str(found), "--devkit", str(trained / "data"), "--json", str(out)]
    assert main(again) == 0
    assert json.loads(out.read_text())["AP"] == pytest.approx(expected, abs=1e-9)


def test_overrides_reach_a_model_without_a_config(trained, capsys):
    found = trained / "found"
    options = ["--weights", str(trained / "best.pt"), "test.score_threshold=0.999", "--write-detections", str(found)]
    assert main(["eval-voc", *options]) == 0
    assert all(file.read_text() == "" for file in found.iterdir())


def test_a_config_of_other_classes_is_refused(trained, capsys):
    options = ["--config", str(trained / "config.yaml"), "data.classes=[dog, cat]", "--weights", str(trained / "best.pt")]
    assert main(["eval-voc", *options]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_split_without_annotations_is_detected_in_for_the_server(trained, capsys):
    for file in (trained / "data/Annotations").glob("*.xml"):
        file.unlink()
    arguments = ["eval-voc", "--config", str(trained / "config.yaml"), "data.test.0.annotated=false"]
    assert main([*arguments, "--write-detections", str(trained / "comp4")]) == 0
    assert (trained / "comp4/comp4_det_test_cat.txt").read_text()
    assert "test server" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "--write-detections" in capsys.readouterr().err


def test_masks_of_a_model_are_measured_on_the_images_that_have_them(tmp_path, capsys):
    folder = write_trained(tmp_path)
    pixels = np.zeros((200, 200), np.uint8)
    pixels[10:50, 10:35], pixels[:20, 50:80], pixels[20:22, 50:80] = 1, 2, 255
    picture = Image.fromarray(pixels)
    picture.putpalette([0, 0, 0] * 256)
    (folder / "data/SegmentationObject").mkdir()
    picture.save(folder / "data/SegmentationObject/im1.png")
    text = (folder / "config.yaml").read_text().replace("{backbone: resnet18}", "{backbone: resnet18, mask: true}")
    (folder / "config.yaml").write_text(text)
    config = write_checkpoint(folder / "best.pt", folder / "config.yaml")
    command = ["eval-voc", "--weights", str(folder / "best.pt"), "--report", str(folder / "report")]
    assert main([*command, "--json", str(folder / "out.json")]) == 0
    out, printed = json.loads((folder / "out.json").read_text()), capsys.readouterr().out
    expected = evaluate(load_detector(folder / "best.pt"))
    split = load_evaluation_split(config)
    assert [record.masks is not None for record in split.records] == [False, True, False]
    assert there(split.records[1].void).areas.tolist() == [60] and there(split.records[1].masks).areas.tolist() == [1000, 600]
    for key, least in (("mask_voc50", "0.5"), ("mask_voc70", "0.7")):
        assert out[key] == pytest.approx(expected.metrics[key]) and set(out["class_ap"][key]) == {"cat", "dog"}
        assert f"mask AP^r {out[key]:.4f} (VOC10+ area under the curve, IoU of masks {least}" in printed
        assert json.loads((folder / "report/report.json").read_text())["metrics"][key] == pytest.approx(out[key])


def test_perfect_masks_of_real_images(real_data):
    """What the loader reads of VOC's pictures, void pixels included, found as it is and moved by 8 pixels."""
    source = VocSource(format="voc", root=real_data / "voc12_animals/VOCdevkit/VOC2012", split="val")
    dataset = load_dataset([source], "voc", masks=True)
    masked = [record for record in dataset.records if record.masks is not None]
    assert 20 < len(masked) < len(dataset.records)
    sure = {each.image_id: there(each.masks).areas > 0 for each in masked}
    found = {
        each.image_id: Detections(each.boxes, torch.ones(len(each.labels)), each.labels, masks=each.masks)[sure[each.image_id]]
        for each in masked
    }
    metrics = evaluate_detections(dataset, found).metrics
    assert metrics["mask_voc50"] == metrics["mask_voc70"] == 1
    moved = {
        key: replace(each, masks=Masks.from_bitmaps(there(each.masks).decode().roll((8, 8), (1, 2))))
        for key, each in found.items()
    }
    metrics = evaluate_detections(dataset, moved).metrics
    assert 0.3 < metrics["mask_voc70"] < metrics["mask_voc50"] < 1
