"""A run that was stopped, in whatever way, and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backbones.preprocessing import IMAGENET_PREPROCESSING
from detection.config import Config
from detection.engine import signals
from detection.engine.signals import StopSignals
from detection.engine.state import rng_state, set_rng_state, with_new_keys
from detection.errors import CheckpointError, TrainingError
from detection.weights.checkpoint import CheckpointMetadata
from tests.child_process import run_python
from tests.engine.toy import CONFIG, ToyBatch, measure, run, toy_batches


@pytest.fixture(scope="module")
def uninterrupted(module_path: Path) -> Path:
    run(module_path)
    return module_path


def logged(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    timed = ("step_time", "data_time", "images_per_second", "memory_mb")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def assert_same_run(folder: Path, other: Path) -> None:
    ours, theirs = (torch.load(path / "last.pt", weights_only=True) for path in (folder, other))
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=0)
    ours, theirs = ours["training"], theirs["training"]
    torch.testing.assert_close(ours["optimizer"], theirs["optimizer"], rtol=0, atol=0)
    assert (ours["step"], ours["best"]) == (theirs["step"], theirs["best"])
    assert logged(folder) == logged(other)


class Killed(BaseException):
    """Stands for SIGKILL inside one process: nothing of the engine may run after it."""


@pytest.mark.parametrize("batch", [1, 9, 11, 14, 23])
def test_a_run_killed_in_any_batch_is_repeated_from_its_last_checkpoint(
    tmp_path: Path, uninterrupted: Path, batch: int
) -> None:
    def batches(first: int) -> Iterator[ToyBatch]:
        for number, value in enumerate(toy_batches(first), start=first):
            if number == batch:
                raise Killed
            yield value

    with pytest.raises(Killed):
        run(tmp_path, batches=batches)
    result = run(tmp_path, resume=True)
    assert result.steps == 12
    assert_same_run(tmp_path, uninterrupted)


def test_a_run_killed_while_it_evaluates_does_it_again(tmp_path: Path, uninterrupted: Path) -> None:
    calls = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return measure(model)

    with pytest.raises(Killed):
        run(tmp_path, evaluate=evaluate)
    result = run(tmp_path, evaluate=evaluate, resume=True)
    assert len(calls) == 3 and result.metrics.keys() == {"AP", "other"}
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_finishes_the_step_and_saves(
    tmp_path: Path, uninterrupted: Path, number: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def batches(first: int) -> Iterator[ToyBatch]:
        for index, value in enumerate(toy_batches(first), start=first):
            if index == 12:  # the first micro-batch of step 7, in the middle of a log interval
                os.kill(os.getpid(), number)
            yield value

    result = run(tmp_path, batches=batches)
    assert (result.steps, result.signal, result.interrupted) == (7, number, True)
    assert f"{name} at step 7 of 12; saved {tmp_path / 'last.pt'}" in capsys.readouterr().out
    assert not run(tmp_path, resume=True).interrupted
    said = capsys.readouterr().out
    assert "at step 7 of 12: restored weights, optimizer, schedule" in said and "batch 14" in said
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("stuck_at", [12, 13])  # the first and the second micro-batch of step 7
def test_a_signal_is_heard_while_no_data_come(
    stuck_at: int, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "DATA_GRACE", 0.2)

    def batches(first: int) -> Iterator[ToyBatch]:
        for index, value in enumerate(toy_batches(first), start=first):
            if index == stuck_at:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
                pytest.fail("waited in vain")
            yield value

    result = run(tmp_path, batches=batches)
    assert (result.steps, result.signal) == (6, signal.SIGTERM)
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_a_signal_breaks_an_evaluation_off(tmp_path: Path, uninterrupted: Path) -> None:
    finished = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)  # this process's handlers run before it returns
        finished.append(model)
        return {}

    result = run(tmp_path, evaluate=evaluate)
    assert (result.steps, result.signal) == (6, signal.SIGTERM)
    assert not finished
    run(tmp_path, resume=True)
    assert_same_run(tmp_path, uninterrupted)


def test_a_second_interrupt_aborts_at_once() -> None:
    # A suite that a shell runs in the background is started with SIGINT ignored.
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.received == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outer)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    errors = []

    def enter() -> None:
        try:
            with StopSignals():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not errors


# One process imports torch and forks a child for each life of the run: starting Python anew takes seconds. The kernel ends
# a life when its timer runs out, as SIGKILL does: nothing handles the alarm. The first lives are too short to finish. The run
# that it must equal is a child too: threads and instruction sets, as the test process has them, round differently.
KILLER = """
import os, random, signal, sys
from pathlib import Path
import torch, tensorboard.compat.proto.event_pb2, tensorboard.summary.writer.record_writer
from tests.engine.toy import run, slow_batches

torch.set_num_threads(1)
torch.optim.SGD(torch.nn.Linear(1, 1).parameters())  # the first optimizer imports half of torch
folder, chance = Path(sys.argv[1]), random.Random(5)


def live(name, seconds=0.0):
    if (child := os.fork()) == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # 0: never
        try:
            run(folder / name, batches=slow_batches, resume=(folder / name / "last.pt").exists())
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitpid(child, 0)[1]


if live("whole") != 0:
    sys.exit("the uninterrupted run failed")
for life in range(60):
    status = live("killed", chance.uniform(0.02, 0.2 * 1.1**life))
    if status == 0:
        print("lives", life + 1)
        sys.exit(0)
    if not os.WIFSIGNALED(status):
        sys.exit("the run failed")
sys.exit("never finished")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_instant(tmp_path: Path) -> None:
    done = run_python(["-c", KILLER, str(tmp_path)])
    assert "lives" in done.stdout and "lives 1\n" not in done.stdout, done.stdout
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    first = run(tmp_path)
    before = (tmp_path / "last.pt").read_bytes(), logged(tmp_path)
    again = run(tmp_path, resume=True)
    assert (again.steps, again.metrics, again.best) == (first.steps, first.metrics, first.best)
    assert ((tmp_path / "last.pt").read_bytes(), logged(tmp_path)) == before


def test_more_steps_continue_a_finished_run(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, CONFIG.model_copy(update={"steps": 14}), resume=True).steps == 14
    with pytest.raises(TrainingError, match=r"train.steps \(14 -> 13\)"):
        run(tmp_path, CONFIG.model_copy(update={"steps": 13}), resume=True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nothing to resume: .*last.pt does not exist; .* \(without --resume\)"):
        run(tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


SOURCES = (
    {"format": "voc", "root": "a", "split": "train", "year": None, "annotated": True},
    {"format": "coco", "root": "b", "annotations": "b.json", "images": "c"},
    {"format": "yolo", "root": "c", "split": "train"},
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source["format"])
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_run_is_older_than_keys_of_its_sources(source: dict[str, Any], name: str) -> None:
    """A source in a list is completed as the config is: runs of earlier versions go on."""

    def of_run(source: dict[str, Any]) -> CheckpointMetadata:
        config = {"data": {"classes": ["cat", "dog"], name: [source]}}
        return CheckpointMetadata("detector", ("cat", "dog"), IMAGENET_PREPROCESSING, config, versions={})

    [now] = Config.model_validate(of_run(source).config).model_dump(mode="json")["data"][name]
    assert now.keys() > source.keys()
    assert with_new_keys(of_run(source), [f"data.{name}"])[f"data.{name}"] == [now]
    assert with_new_keys(of_run({**source, "weight": 2}), [])[f"data.{name}"] == [now | {"weight": 2}]


def test_changed_settings_are_named(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 2, "lr_drops": ()})
    run(tmp_path, config, settings={"data": {"workers": 2, "classes": "voc"}, "output_dir": "a"})
    changed = config.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(TrainingError, match=r"differ .*train.learning_rate \(0.05 -> 0.1\), data.classes \(voc -> coco\)"):
        run(tmp_path, changed, settings={"data": {"workers": 2, "classes": "coco"}, "output_dir": "a"}, resume=True)
    unimportant = config.model_copy(update={"log_every": 1, "checkpoint_every": 1})
    run(tmp_path, unimportant, settings={"data": {"workers": 0, "classes": "voc"}, "output_dir": "b"}, resume=True)


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="last.pt is not a checkpoint"):
        run(tmp_path, resume=True)
    (tmp_path / "last.pt").write_bytes((tmp_path / "best.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"no training state; start a new run from it, as model.weights \(--weights\)"):
        run(tmp_path, resume=True)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    last["training"]["sampler"]["world_size"] = 4
    torch.save(last, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"written by 4 process\(es\) and this run has 1"):
        run(tmp_path, resume=True)


def test_random_states_come_back() -> None:
    state = rng_state()
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    set_rng_state(state)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn
