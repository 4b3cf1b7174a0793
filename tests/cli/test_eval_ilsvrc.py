"""resdet eval-ilsvrc: the numbers of submitted files on the screen and as JSON, and what is refused."""

import json
import math

import pytest

from detection.cli.main import main
from tests.ilsvrc_kit import write_kit

# Of the kit's three images: both objects of a, at the right places; c's class is not evaluated.
DET = "1 1 0.9 0 1 200 4\n1 2 0.8 9 9 19 19\n3 2 0.9 0 0 5 5\n"
LOC = "1 0 0 9 9 2 0 0 9 9\n1 50 50 60 60\n"


@pytest.fixture
def kit(tmp_path):
    return str(write_kit(tmp_path / "kit"))


def test_det_of_a_whole_submission(kit, tmp_path, capsys):
    (tmp_path / "det.txt").write_text(DET)
    out = tmp_path / "numbers.json"
    assert main(["eval-ilsvrc", "det", "--detections", str(tmp_path / "det.txt"), "--devkit", kit, "--json", str(out)]) == 0
    assert json.loads(out.read_text()) == {"mAP": 1.0, "median_AP": 1.0, "AP": {"big cat": 1.0, "dog": 1.0}}
    assert "big cat" in capsys.readouterr().out


def test_loc_counts_guesses_one_by_one(kit, tmp_path, capsys):
    (tmp_path / "loc.txt").write_text(LOC)
    out = tmp_path / "numbers.json"
    assert main(["eval-ilsvrc", "loc", "--detections", str(tmp_path / "loc.txt"), "--devkit", kit, "--json", str(out)]) == 0
    numbers = json.loads(out.read_text())
    # Image 1's second guess is right; image 2 is not evaluated for its boxes, and its class is right.
    assert numbers["localisation_error"] == [1, 0, 0, 0, 0] and numbers["classification_error"] == [0.5, 0, 0, 0, 0]
    assert math.isclose(numbers["gt_class_error"], 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loc", "--split", "val"], "unrecognized arguments: --split"),
        (["seg"], "argument task: invalid choice: 'seg'"),
        (
            ["det", "--split", "val1"],
            "image_index must be a whole number from 1 to 1, found 3; the list of val1 numbers its images anew: a submission "
            "for the whole of val is measured as val (--split val)",
        ),
        (["det", "--json", "det.txt"], "name two"),
        (["det", "--json", "kit/data/map_det.txt"], "--json would replace 'kit/data/map_det.txt'"),
        (["det", "--annotations", "xml", "--json", "xml/a.xml"], "--json would replace 'xml/a.xml'"),
        (["loc", "--json", "kit/data/map_clsloc.txt"], "--json would replace 'kit/data/map_clsloc.txt'"),
    ],
)
def test_what_does_not_go_together_is_refused(kit, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "det.txt").write_text(DET)
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/a.xml").write_text("<annotation></annotation>")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert main(["eval-ilsvrc", *words, "--detections", "det.txt", "--devkit", kit]) == 2
    assert message in capsys.readouterr().err
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("task", ["det", "loc"])
def test_each_task_shows_its_own_options(task, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["resdet"])
    with pytest.raises(SystemExit, match="0"):
        main(["eval-ilsvrc", task, "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: resdet {task} ") and ("--split" in shown) == (task == "det")
