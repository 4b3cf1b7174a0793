"""Words of a command line: whatever is wrong with them is one line and exit code 2, before any work."""

import os

import pytest

from detection.cli.main import main

NUMBERS = {
    "--max-frames": ["demo", "x.jpg"],
    "--score-threshold": ["demo", "x.jpg"],
    "--smooth": ["plot-runs", "run"],
    "--images": ["layer-responses", "--config", "c.yaml", "--weights", "w.pt"],
    "--timed-images": ["ablation"],
    "--iou-threshold": ["eval-voc"],
}
NO_NUMBERS = ["nan", "inf", "-inf", "1e400", "-1", "9" * 5000, "",
              " ", "1_0", "\u0661", "0x10", "1,5", "\x1b[2J", "\udcff", "None"]  # fmt: skip

BAD_OUTPUTS = ["", " ", "file/x", "file/x/y.png", "dangling/x.png", "n" * 256 + ".png", "a/" * 3000 + "x.png", "nul\0.png"]
OUTPUTS = {
    "file": [
        ["eval-voc", "--json"],
        ["eval-coco", "--json"],
        ["eval-coco", "--write-detections"],
        ["eval-classifier", "--config", "c.yaml", "--weights", "w.pt", "--json"],
        ["ablation", "--json"],
        ["plot-runs", "run", "--output"],
        ["plot-runs", "run", "--json"],
        ["layer-responses", "--config", "c.yaml", "--weights", "w.pt", "--json"],
        ["layer-responses", "--config", "c.yaml", "--weights", "w.pt", "--plot"],
        ["convert-weights", "w.pth"],
        ["convert-weights", "w.pth", "out.pt", "--report"],
        ["export", "--weights", "w.pt"],
    ],
    "folder": [
        ["eval-voc", "--report"],
        ["eval-coco", "--report"],
        ["report", "run", "--output"],
        ["eval-voc", "--write-detections"],
        ["demo", "x.jpg", "--output"],
        ["check-dataset", "--config", "c.yaml", "--output"],
        ["train", "--config", "c.yaml", "--output-dir"],
        ["pretrain", "--config", "c.yaml", "--output-dir"],
        ["quickstart", "--output-dir"],
    ],
}


def line_of(capsys, arguments) -> str:
    """The one line of a command that refuses its arguments."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("error: ")
    assert captured.err[:-1].isprintable() and len(captured.err) < 700
    return captured.err


@pytest.mark.parametrize("option", NUMBERS)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:12])
def test_no_option_takes_these_for_numbers(option, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert option in line_of(capsys, [*NUMBERS[option], f"{option}={value}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [*OUTPUTS["file"], *OUTPUTS["folder"]], ids=" ".join)
@pytest.mark.parametrize("value", BAD_OUTPUTS, ids=lambda value: repr(value)[:12])
def test_an_output_that_cannot_be_is_refused_before_the_work(arguments, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    line_of(capsys, [*arguments, value])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


@pytest.mark.parametrize("arguments", OUTPUTS["file"], ids=" ".join)
def test_a_folder_is_no_output_file(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    assert "folder.png" in line_of(capsys, [*arguments, "folder.png"])


def test_a_folder_without_permission_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert "nothing may be written" in line_of(capsys, ["demo", "x.jpg", "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "which experiment?"),
        (["train", "--config"], "--config expected one argument"),
        (["train", "--config", ""], "--config must be the name of a file"),
        (["train", "--config", "c.yaml", "--nonsense\x1b[2J"], "\\x1b[2J"),
        (["train", "--config", "c.yaml", "--" + "x" * 10**6], "unrecognized"),
        (["eval-voc", "--metric", "\udcff"], "choose from"),
        (["eval-voc", "--iou-threshold", "0"], "--iou-threshold must be above 0"),
        (["\x1b[2J"], "unknown command"),
        (["x" * 10**6], "unknown command"),
    ],
)
def test_the_parsers_own_complaints_are_one_line(arguments, words, capsys):
    assert words in line_of(capsys, arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["plot-runs", "run", "--output", "a.png", "--json", "a.png"],
        ["plot-runs", "run", "--json", "run/metrics.jsonl"],
        ["plot-runs", "run", "--json", "other/../run/metrics.jsonl"],
        ["plot-runs", "run", "--json", "link"],
        ["eval-voc", "--weights", "a.pt", "--json", "./a.pt"],
        ["eval-coco", "--annotations", "a.json", "--detections", "b.json", "--json", "b.json"],
        ["eval-classifier", "--config", "c.yaml", "--weights", "w.pt", "--json", "c.yaml"],
        ["layer-responses", "--config", "c.yaml", "--weights", "v.pt", "w.pt", "--json", "w.pt"],
        ["ablation", "--weights", "w.pt", "--json", "w.pt"],
        ["convert-weights", "w.pth", "v.pt", "--report", "w.pth"],
        ["convert-weights", "w.pth", "v.pt", "--report", "v.pt"],
    ],
    ids=" ".join,
)
def test_an_output_is_no_input_and_no_other_output(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"kind": "train", "step": 1, "loss": 1.0}\n')
    (tmp_path / "link").symlink_to("run/metrics.jsonl")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    assert "one file" in line_of(capsys, arguments)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before
