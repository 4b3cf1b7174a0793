"""`resdet report`: what is printed and written, where, and what is refused before anything is computed."""

import json
import shutil
from pathlib import Path

import pytest

from detection.cli.main import main
from detection.config import load_config
from detection.report.folder import REPORT_FILE, is_report
from tests.cli.trained import write_trained


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_trained(tmp_path_factory.mktemp("made"))


@pytest.fixture
def trained(made, tmp_path) -> Path:
    """A run, its data and its config."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def refused(*arguments: object, capsys) -> str:
    """The line that a command says before it exits with 2."""
    assert main(["report", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_the_report_of_a_run_is_in_its_folder(trained, capsys):
    (trained / "metrics.jsonl").write_text('{"kind": "train", "step": 5, "loss": 1.5}\n')
    assert main(["report", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(trained) and lines[-1] == f"report: {trained}/report/index.html"
    assert [line.split()[0] for line in lines[1:5]] == ["AP", "AP50", "AP75", "VOC"]
    numbers = json.loads((trained / "report" / REPORT_FILE).read_text())
    assert numbers["images"] == 3 and numbers["objects"] == 6 and numbers["latency"]["seconds_per_image"] > 0
    page = (trained / "report/index.html").read_text()
    assert '"values":[1.5]' in page
    assert lines[-2] == numbers["finding"] and set(numbers["error_gains"]) >= {"missed", "class", "false_positives"}


def test_a_data_set_for_fiftyone_is_written_if_it_is_asked_for(trained, capsys):
    assert main(["report", str(trained)]) == 0 and not (trained / "report/fiftyone").exists()
    assert main(["report", str(trained), "--export", "fiftyone"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"FiftyOne: {trained}/report/fiftyone"
    assert len(json.loads((trained / "report/fiftyone/samples.json").read_text())["samples"]) == 3


def test_a_report_can_be_reported_again_elsewhere(trained, capsys, monkeypatch):
    assert main(["report", str(trained)]) == 0
    monkeypatch.chdir(trained)
    assert "report' is read, and lies in the output " in refused("report", "--output", "report", capsys=capsys)
    assert main(["report", "report"]) == 0
    first, again = (json.loads((folder / REPORT_FILE).read_text()) for folder in (trained / "report", trained / "runs/report"))
    assert again["metrics"] == pytest.approx(first["metrics"]) and again["latency"] is None


def test_an_older_report_is_replaced_and_other_files_stay(trained, capsys):
    for _ in range(2):
        assert main(["report", str(trained / "best.pt"), "--output", str(trained / "out"), "test.max_detections=3"]) == 0
        (trained / "out/notes.txt").write_text("mine")
    assert (trained / "out/notes.txt").read_text() == "mine"
    assert json.loads((trained / "out" / REPORT_FILE).read_text())["detections"] <= 9


def test_a_report_that_fails_leaves_no_page_and_can_be_written_again(trained, monkeypatch):
    def fail(*_):
        raise RuntimeError("no page")

    assert main(["report", str(trained)]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("detection.report.page.render_page", fail)
        with pytest.raises(RuntimeError, match="no page"):
            main(["report", str(trained)])
    assert is_report(trained / "report") and not (trained / "report/index.html").exists()
    assert main(["report", str(trained)]) == 0 and (trained / "report/index.html").exists()


def test_mistakes_are_one_line_before_anything_is_computed(trained, monkeypatch, capsys):
    def fail(*_, **__):
        raise AssertionError("a detector was run")

    monkeypatch.setattr("detection.inference.evaluate.predict_together", fail)
    (trained / "broken").mkdir()
    (trained / "broken" / REPORT_FILE).write_text("{")
    cases = [
        (["test.flip=true"], "what is to be reported?"),
        ([trained / "data"], "is no run"),
        ([trained, "--output", trained], "is read, and lies in the output "),
        ([trained, "--output", trained / "data"], "is not empty and holds no report"),
        ([trained, "--output", trained / "broken"], "is not empty and holds no report"),
        ([trained, "test.flop=true"], "test.flop"),
        ([trained, "--annotations", "x.json"], "--annotations goes with a COCO result file"),
        ([trained, "--config", trained / "none.yaml"], "none.yaml"),
        ([trained / "none.pt"], "none.pt"),
    ]
    for arguments, message in cases:
        assert message in refused(*arguments, capsys=capsys)
    assert not (trained / "report").exists() and load_config(trained / "config.yaml")


def test_several_are_compared_with_a_report_of_each(trained, capsys):
    names = [str(trained / "best.pt"), str(trained), "--output", str(trained / "both")]
    for _ in range(2):  # the second replaces the first
        assert main(["report", *names]) == 0
        assert capsys.readouterr().out.endswith(f"report: {trained}/both/index.html\n")
    assert len(list((trained / "both").glob("*/index.html"))) == 2
    assert "is not empty and holds no report" in refused(*names[:3], trained / "data", capsys=capsys)
