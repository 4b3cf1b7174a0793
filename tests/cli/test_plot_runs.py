"""Curves of several runs in one picture."""

import json

import pytest

from detection.cli.commands.plot_runs import main
from detection.cli.main import run
from detection.data.images import read_image
from tests.analysis.test_curves import write_run


def test_runs_are_drawn(tmp_path, capsys):
    runs = [write_run(tmp_path / name, errors) for name, errors in (("plain", [0.9, 0.8]), ("resnet", [0.9, 0.6]))]
    output = tmp_path / "out" / "curves.png"
    assert run(main, [*map(str, runs), "--output", str(output), "--json", str(tmp_path / "c.json")]) == 0
    assert read_image(output).shape[1] > 1000 and str(output) in capsys.readouterr().out
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["metric"] == "top1_error" and written["train_metric"] == "train_top1_error"
    assert written["runs"]["resnet"]["evaluation"] == {"steps": [10, 20], "values": [0.9, 0.6]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "top1_eror"], "did you mean 'top1_error'?"),
        (["--metric", "top1_eror"], "it has top1_error, top5_error"),
        (["--metric", "loss_x"], "it is a metric of the training: give it as train_metric (--train-metric)"),
        (["--train-metric", "AP"], "has no training metric 'AP'"),
        (["--labels", "a", "b"], "labels (--labels) must be 1 different names, got 2"),
        (["--smooth", "0"], "--smooth must be at least 1"),
        (["--output", "curves.xyz"], "cannot draw 'curves.xyz'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, options, message):
    folder = write_run(tmp_path / "a", [0.9])
    assert run(main, [str(folder), "--output", str(tmp_path / "c.png"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


GOOD = b'{"kind": "train", "step": 1, "loss": 1.0}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no records yet"),
        (b'{"kind": "tr', "has no records yet"),
        (b'{"step": 1}\n{"a"\n{"b"\n', "line 1 is no record"),
        (GOOD + b'{"kind": "train", "st\n' + GOOD, "line 2 is damaged"),
        (GOOD + b"\xff\x00\x12\n" + GOOD, "line 2 is damaged"),
        (GOOD + b"[1, 2]\n", "line 2 is no record"),
        (GOOD + b'{"kind": "train", "step": "one"}\n', "line 2 is no record"),
        (None, "cannot read"),
    ],
)
def test_files_that_are_no_runs_are_one_line(tmp_path, capsys, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    assert run(main, [str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(tmp_path / "metrics.jsonl") in error and error.count("\n") == 1


def test_a_run_that_was_not_evaluated_yet_does_not_take_the_others_curves_away(tmp_path):
    done, begun = write_run(tmp_path / "done", [0.9, 0.5]), write_run(tmp_path / "begun", [0.8])
    lines = (begun / "metrics.jsonl").read_text().splitlines(keepends=True)
    (begun / "metrics.jsonl").write_text(lines[0])
    for options in ([], ["--metric", "top1_error"]):
        command = [str(done), str(begun), *options, "--output", str(tmp_path / "c.png"), "--json", str(tmp_path / "c.json")]
        assert run(main, command) == 0
        runs = json.loads((tmp_path / "c.json").read_text())["runs"]
        assert runs["done"]["evaluation"]["values"] == [0.9, 0.5] and set(runs["begun"]) == {"training"}


def test_a_detectors_ap_and_loss_are_drawn(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 5, "loss": 3.0, "losses": {"loss_rpn_class": 0.5}}\n'
        '{"kind": "evaluation", "step": 5, "metrics": {"AP": 0.25, "AP50": 0.5}}\n'
    )
    file = tmp_path / "metrics.jsonl"
    command = [str(file), "--output", str(tmp_path / "c.svg"), "--json", str(tmp_path / "c.json")]
    assert run(main, command) == 0
    written = json.loads((tmp_path / "c.json").read_text())
    assert (written["metric"], written["train_metric"]) == ("AP", "loss")
    assert written["runs"] == {
        tmp_path.name: {"evaluation": {"steps": [5], "values": [0.25]}, "training": {"steps": [5], "values": [3.0]}}
    }


def test_the_numbers_are_there_although_the_plot_fails(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("no plot")

    monkeypatch.setattr("detection.analysis.curves.plot_curves", fail)
    folder = write_run(tmp_path / "a", [0.9])
    with pytest.raises(RuntimeError, match="no plot"):
        run(main, [str(folder), "--output", str(tmp_path / "c.png"), "--json", str(tmp_path / "c.json")])
    assert set(json.loads((tmp_path / "c.json").read_text())["runs"]) == {"a"}
