"""Files of metrics that no run wrote, or that one wrote half: drawn where they can be, else one line."""

import json
import os
import warnings
from pathlib import Path

import pytest

from backbones.errors import printable
from detection.analysis.curves import plot_curves, read_run, select_curves
from detection.cli.main import main
from detection.errors import DatasetError

TRAIN = '{"kind": "train", "step": %s, "loss": %s, "losses": {"rpn": 0.5}}'


def write_run(folder: Path, *lines: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join((line if isinstance(line, bytes) else line.encode(errors="surrogatepass")) + b"\n" for line in lines)
    (folder / "metrics.jsonl").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        "{",
        "[" * 10**5,
        '{"kind": "train", "step": 1, "x": ' + '{"a": ' * 980 + "1" + "}" * 981,
        "7",
        "null",
        "[]",
        '{"kind": "other", "step": 1}',
        '{"kind": [], "step": 1}',
        TRAIN % ("true", 1),
        TRAIN % ('"1"', 1),
        TRAIN % ("1.5", 1),
        TRAIN % ("-1", 1),
        TRAIN % (10**400, 1),
        TRAIN % ("9" * 5000, 1),
        TRAIN % ("null", 1),
        '{"kind": "train\\u001b[2J", "step": 1}',
    ],
    ids=lambda line: repr(line)[:30],
)
def test_a_line_that_is_no_record_is_named(line, tmp_path, capsys):
    run = write_run(tmp_path / "run", TRAIN % (1, 2.0), line, TRAIN % (3, 1.0))
    assert main(["plot-runs", str(run), "--output", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert "line 2" in error and error.count("\n") == 1 and error[:-1].isprintable() and len(error) < 400
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "null", "1e400", "1e308", str(10**400), '"text"', "[1]", "true", "{}"]
)
def test_a_value_that_cannot_be_drawn_is_a_gap(value, tmp_path, capsys):
    run = write_run(tmp_path / "run", *(TRAIN % (step, value if step == 2 else 1.0) for step in range(1, 5)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["plot-runs", str(run), "--output", str(tmp_path / "a.png"), "--json", str(tmp_path / "a.json")]) == 0
    drawn = json.loads((tmp_path / "a.json").read_text())["runs"]["run"]["training"]
    assert [one for one in drawn["values"] if one is not None] == [1.0, 1.0, 1.0]


def test_no_value_at_all_is_drawn_too(tmp_path):
    plot_curves(select_curves([write_run(tmp_path / "run", TRAIN % (1, "null"))]), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("last", ["", '{"kind": "tr', b"\xc3", "{" * 10**5])
def test_half_a_last_line_is_left_out(last, tmp_path):
    assert read_run(
        write_run(tmp_path / "run", TRAIN % (1, 2.0), last) if last else write_run(tmp_path / "run", TRAIN % (1, 2.0))
    ).training


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    (tmp_path / "loop").symlink_to("loop")
    for folder in (tmp_path, tmp_path / "metrics.jsonl", Path(os.devnull), tmp_path / "loop", tmp_path / "absent"):
        with pytest.raises(DatasetError, match="cannot read"):
            read_run(folder)


@pytest.mark.parametrize("name", ["a$b$", "$", r"\frac$x$", "_hidden", "猫", "[/x]", "\x1b[31m", "<b>&", "%s", "{x}"])
def test_any_name_of_a_metric_or_a_run_is_drawn_without_a_warning(name, tmp_path, capsys):
    run = write_run(tmp_path / "run", json.dumps({"kind": "train", "step": 1, name: 1.0}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves(select_curves([run], labels=[printable(name)], train_metric=name), tmp_path / "a.svg")
    assert main(["plot-runs", str(run), "--labels", name, "--train-metric", "absent"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error[:-1].isprintable()
