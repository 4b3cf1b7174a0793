"""The benchmark measures what it says, on tiny work; nothing here is timed against a bound."""

import json
import time
from functools import partial

import pytest
import torch

from detection.benchmarks.contest import contest, count_gigaflops, ratios
from detection.benchmarks.data import EVALUATION_COUNTS, evaluating
from detection.benchmarks.detector import Task, ours, torchvision_peer
from detection.benchmarks.operators import pooling
from detection.cli.benchmark import main
from detection.cli.main import run
from detection.errors import TrainingError


def sleeper(seconds: float):
    return lambda: time.sleep(seconds) or {"AP": 0.5}


def failing():
    raise ValueError("no such thing")


def test_contestants_take_turns_and_their_seconds_are_their_own():
    results = contest({"other": partial(sleeper, 0.05), "ours": partial(sleeper, 0.01)}, rounds=3)
    assert len(results["ours"].seconds) == 3 and results["ours"].numbers == {"AP": 0.5}
    assert 0.01 <= results["ours"].median < results["other"].median
    assert results["ours"].peak_mb > 50
    assert set(ratios(results)) == {"ours"} and ratios(results)["ours"]["other"]["speed"] > 1


def test_a_contestant_that_fails_is_named():
    with pytest.raises(TrainingError, match="'broken' of the benchmark failed: ValueError: no such thing"):
        contest({"broken": failing})


def test_work_is_counted_in_two_flops_a_multiply_add():
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    assert count_gigaflops(lambda: a @ b) == pytest.approx(2 * 10 * 20 * 30 / 1e9)


@pytest.mark.parametrize("job", ["train", "infer"])
def test_both_detectors_do_the_same_work(job):
    """The convolutions are the same; RoIAlign is none on their side, and products on ours."""
    task = Task(job, "fp32", size_hw=(96, 128), num_rois=16, proposals=10)
    torch.manual_seed(0)
    mine, theirs = (count_gigaflops(build(task)) for build in (ours, torchvision_peer))
    assert mine == pytest.approx(theirs, rel=0.15)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_both_operators_pool_the_same(direction):
    mine, theirs = (pooling(who, direction, torch.float32, 8)() for who in ("ours", "torchvision"))
    if direction == "backward":
        mine, theirs = mine[0], theirs[0]
    torch.testing.assert_close(mine.contiguous(), theirs.contiguous(), rtol=1e-3, atol=1e-4)


def test_both_evaluations_give_the_same_numbers(monkeypatch):
    for name, count in {"images": 30, "boxes": 200, "detections": 1500, "classes": 5}.items():
        monkeypatch.setitem(EVALUATION_COUNTS, name, count)
    mine, theirs = (evaluating(who)() for who in ("ours", "pycocotools"))
    assert mine == pytest.approx(theirs, abs=1e-9) and mine["AP"] > 0.05


def test_the_command_prints_and_writes(tmp_path, capsys):
    assert run(main, ["loader", "--rounds", "1", "--json", str(tmp_path / "b.json")]) == 0
    written = json.loads((tmp_path / "b.json").read_text())
    (measured,) = written["contests"]
    assert measured["results"]["ours"]["median_seconds"] > 0 and written["commit"] and "one thread" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sped"], "unknown part 'sped'"),
        (["--size", "600"], "--size must be HEIGHTxWIDTH"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert run(main, arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
