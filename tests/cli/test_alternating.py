"""The four steps: what each trains, that they end in one network, and that an interrupted run goes on where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.cli import alternating
from detection.cli.main import main
from detection.structures import Batch, Target
from tests.cli.test_train import devkit, train, write_config
from tests.small_detector import detector, noise

__all__ = ["devkit"]  # a fixture

SETTINGS = ("approach=alternating", "train.steps=3", "train.checkpoint_every=1")
PARTS = ("trunk", "rpn", "roi_head")


@pytest.fixture(scope="module")
def finished(devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alternating")
    assert train("--config", write_config(folder, devkit), *SETTINGS) == 0
    return folder / "run"


def weights(run: Path, number: int) -> dict[str, dict[str, torch.Tensor]]:
    """The parts of a step's network."""
    state = torch.load(run / alternating.FOLDERS[number - 1] / "last.pt", weights_only=True)["model"]
    return {part: {key: value for key, value in state.items() if key.startswith(part)} for part in PARTS}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_each_step_trains_its_own_part(finished: Path) -> None:
    one, two, three, four = (weights(finished, number) for number in (1, 2, 3, 4))
    # Both start from the same classifier (here: the same random numbers), and train the trunk apart.
    assert not same(one["trunk"], two["trunk"]) and not same(one["rpn"], two["rpn"])
    assert same(two["trunk"], three["trunk"]) and same(three["trunk"], four["trunk"])
    assert not same(two["rpn"], three["rpn"]) and same(three["rpn"], four["rpn"])
    assert same(two["roi_head"], three["roi_head"]) and not same(three["roi_head"], four["roi_head"])


@pytest.mark.parametrize("separate", [True, False])
def test_fast_rcnn_learns_from_the_proposals_of_its_proposer(separate: bool) -> None:
    config = detector().config
    proposer = detector().eval() if separate else None
    model = alternating.FastRcnnStep(config, config.data.class_names, proposer)
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([0]), torch.zeros(0, 4))
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target])
    torch.manual_seed(1)
    found = model(batch)
    maker = proposer or model
    proposals = maker.rpn.training_proposals(maker.rpn(maker.extract(batch)), batch.sizes_hw)
    torch.manual_seed(1)
    expected = model.roi_head.losses(model.extract(batch), proposals, batch.sizes_hw, batch.targets)
    assert found.keys() == {"loss_class", "loss_box"}
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], rtol=0, atol=0)
    assert model.state_dict().keys() == detector().state_dict().keys()  # the proposer is no part of it


def test_the_result_is_a_detector_like_any_other(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (finished / "best.pt").exists() and not (finished / "step2_fast_rcnn" / "best.pt").exists()
    assert main(["eval-voc", "--weights", str(finished / "best.pt"), "test.score_threshold=0.0"]) == 0
    assert "mAP" in capsys.readouterr().out


def test_a_finished_run_is_resumed_at_once_and_not_overwritten(
    finished: Path, devkit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "last.pt").read_bytes()
    arguments = ("--config", write_config(finished.parent, devkit), *SETTINGS)
    assert train(*arguments, "--resume") == 0
    assert (finished / "last.pt").read_bytes() == before
    assert train(*arguments) == 2
    assert "holds another run" in capsys.readouterr().err


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_interrupted_in_any_step_equals_one_that_was_not(
    finished: Path, devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    arguments = ("--config", write_config(tmp_path, devkit), *SETTINGS)
    calls = []

    def stopped(model: Any, *rest: Any, **options: Any) -> Any:
        calls.append(model)
        if len(calls) == step:
            model.register_forward_pre_hook(lambda module, inputs: os.kill(os.getpid(), signal.SIGTERM))
        return original(model, *rest, **options)

    original = alternating.train_model
    monkeypatch.setattr(alternating, "train_model", stopped)
    assert train(*arguments) == 128 + signal.SIGTERM
    assert len(calls) == step
    monkeypatch.undo()
    assert train(*arguments, "--resume") == 0
    for number in (1, 2, 3, 4):
        for part, expected in weights(finished, number).items():
            assert same(weights(tmp_path / "run", number)[part], expected), (number, part)
