"""The four steps: what each trains, that they end in one network, and that an interrupted run goes on where it was."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detection import Detector
from detection.cli.main import main
from detection.config import load_config
from detection.engine.callbacks import Callback, StopTraining
from detection.structures import Batch, Target
from detection.training import alternating, train_detector
from tests.cli.test_train import train
from tests.cli.trained import write_checkpoint
from tests.shapes import write_config
from tests.small_detector import detector, noise, pyramid

SETTINGS = ("approach=alternating", "train.steps=3", "train.checkpoint_every=1")
PARTS = ("trunk", "rpn", "roi_head")


@pytest.fixture(scope="module")
def finished(devkit: Path, module_path: Path) -> Path:
    assert train("--config", write_config(module_path, devkit), *SETTINGS) == 0
    return module_path / "run"


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
    propose = None if proposer is None else alternating.proposals_of(proposer)
    model = alternating.FastRcnnStep(config, propose)
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([0]), torch.zeros(0, 4))
    batch = Batch(noise(64, 80)[None], [(64, 80)], [target])
    torch.manual_seed(1)
    found = model(batch)
    maker = proposer or model
    with torch.no_grad():
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


def stop_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> list[Any]:
    """A SIGTERM in the first forward pass of a step; the list grows by each step's network."""
    calls: list[Any] = []

    def stopped(model: Any, *rest: Any, **options: Any) -> Any:
        calls.append(model)
        if len(calls) == step:
            model.register_forward_pre_hook(lambda module, inputs: os.kill(os.getpid(), signal.SIGTERM))
        return original(model, *rest, **options)

    original = alternating.fit
    monkeypatch.setattr(alternating, "fit", stopped)
    return calls


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_interrupted_in_any_step_equals_one_that_was_not(
    finished: Path, devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    arguments = ("--config", write_config(tmp_path, devkit), *SETTINGS)
    calls = stop_in_step(monkeypatch, step)
    assert train(*arguments) == 128 + signal.SIGTERM
    assert len(calls) == step
    monkeypatch.undo()
    before = (tmp_path / "run/step1_rpn/last.pt").read_bytes()
    assert train(*arguments, "--resume") == 0
    assert (tmp_path / "run/step1_rpn/last.pt").read_bytes() == before
    for number in (1, 2, 3, 4):
        for part, expected in weights(finished, number).items():
            assert same(weights(tmp_path / "run", number)[part], expected), (number, part)


def test_step_2_starts_from_the_classifier_after_an_interruption_too(
    devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--weights` is not repeated beside `--resume`. The stages that are never trained tell where a network comes from."""
    config = write_config(tmp_path, devkit)
    write_checkpoint(tmp_path / "given.pt", config, seed=5)
    arguments = ("--config", config, *SETTINGS, "train.steps=1")
    stop_in_step(monkeypatch, 1)
    assert train(*arguments, "--weights", tmp_path / "given.pt") == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert train(*arguments, "--resume") == 0
    given = torch.load(tmp_path / "given.pt", weights_only=True)["model"]["trunk.conv1.weight"]
    for number in (1, 2, 3, 4):
        torch.testing.assert_close(weights(tmp_path / "run", number)["trunk"]["trunk.conv1.weight"], given, rtol=0, atol=0)


def test_more_steps_prolong_the_step_in_progress_not_those_it_was_built_on(
    finished: Path, devkit: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = load_config(write_config(tmp_path, devkit), [*SETTINGS, "train.steps=4"])
    result = train_detector(config, resume=True)
    assert result.steps == 4
    last = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert result.seconds > last["training"]["progress"]["seconds"]  # of all steps
    for number in (1, 2, 3):
        name = Path(alternating.FOLDERS[number - 1], "last.pt")
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_a_folder_of_a_joint_run_is_refused_before_the_first_step(
    finished: Path, devkit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--config", write_config(tmp_path, devkit), *SETTINGS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.pt").symlink_to(finished / "last.pt")
    assert train(*arguments) == 2
    assert f"{tmp_path / 'run'} holds another run (last.pt)" in capsys.readouterr().err
    assert not (tmp_path / "run/step1_rpn").exists()
    assert train(*arguments[:-2], "approach=joint", "--resume") == 2
    assert "approach (alternating -> joint)" in capsys.readouterr().err


@pytest.mark.parametrize("build", [detector, pyramid])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_what_is_fixed_stays_bit_for_bit_and_all_else_gets_a_gradient(number: int, build: Callable[..., Detector]) -> None:
    """Trainable BatchNorm would move its statistics without any gradient; a parameter without one would stall DDP."""
    config = build(model={"norm": "bn"}, fpn={"norm": "bn"}).config
    model = alternating.RpnStep(config) if number in (1, 3) else alternating.FastRcnnStep(config)
    alternating.freeze_fixed_parts(model, number)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    boxes = torch.tensor([[8.0, 8, 40, 40], [40, 20, 78, 60]])
    batch = Batch(noise(64, 80)[None], [(64, 80)], [Target(boxes, torch.tensor([0, 1]), torch.zeros(0, 4))])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sum(model.train()(batch).values()).backward()
    assert all(parameter.grad is not None for parameter in trained)
    torch.optim.SGD(trained, lr=0.1).step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {1: {"trunk", "rpn"}, 2: {"trunk", "roi_head"}, 3: {"rpn"}, 4: {"roi_head"}}[number]


@pytest.mark.parametrize("event", ["on_log", "on_end"])
def test_a_callback_that_stops_the_last_step_of_a_part_ends_the_run(
    event: str, devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is whole is not stopped by it, but the run is."""

    def stop(*_: object) -> None:
        raise StopTraining("enough")

    stopping = Callback()
    monkeypatch.setattr(stopping, event, stop)
    config = load_config(write_config(tmp_path, devkit), ["approach=alternating", "train.steps=1"])
    result = train_detector(config, callbacks=[stopping])
    assert (result.steps, result.stopped_by) == (1, "Callback: enough")
    assert not (config.output_dir / "step2_fast_rcnn").exists()
