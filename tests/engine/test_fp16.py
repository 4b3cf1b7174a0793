"""fp16: losses are scaled, steps whose gradients overflow are left out and counted, and the scale is resumed exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detection.engine import precision, train
from detection.engine.precision import build_scaler, overflowed, resolve_precision
from detection.errors import CheckpointError, TrainingError
from tests.engine.test_resume import assert_same_run
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batches

FP16 = CONFIG.model_copy(update={"precision": "fp16"})
CPU = torch.device("cpu")


class Overflowing(ToyModel):
    """Its gradient overflows in the steps given, at any scale above `limit`; its losses are finite."""

    def __init__(self, steps: set[int], limit: float = 0.0) -> None:
        super().__init__()
        self.steps, self.limit = steps, limit

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        losses = super().forward(batch)
        step = int(batch.files[0].partition(".")[0]) // 8
        if step in self.steps:
            losses["near"] = Explode.apply(losses["near"], self.limit)
        return losses


class Explode(torch.autograd.Function):
    """Itself; its gradient is infinite where it arrives larger than a limit."""

    @staticmethod
    def forward(ctx, loss: Tensor, limit: float) -> Tensor:
        ctx.limit = limit
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient * torch.inf if gradient > ctx.limit else gradient), None


def model(steps: set[int], limit: float = 0.0) -> ToyModel:
    torch.manual_seed(7)
    return Overflowing(steps, limit)


def lines(folder: Path) -> list[dict]:
    parsed = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in parsed if line["kind"] == "train"]


def test_fp16_trains_as_fp32_does_up_to_rounding(tmp_path: Path) -> None:
    one, other = model(set()), model(set())
    few = {"steps": 4, "lr_drops": (), "learning_rate": 0.01}  # the toy's second loss has a kink: more steps part at it
    run(tmp_path / "fp16", FP16.model_copy(update=few), model=one)
    run(tmp_path / "fp32", CONFIG.model_copy(update=few), model=other)
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.01, atol=1e-3)
    assert lines(tmp_path / "fp16")[-1]["loss_scale"] == 65536 and lines(tmp_path / "fp16")[-1]["skipped_steps"] == 0
    assert "loss_scale" not in lines(tmp_path / "fp32")[-1]
    assert "cpu, fp16 autocast, 1 process" in (tmp_path / "fp16/log.txt").read_text()


def test_an_overflow_is_left_out_and_counted(tmp_path: Path) -> None:
    """Steps 2 and 3 (from 0) overflow: the scale is halved twice, and the weights stay as they were after step 1."""
    after_two, after_four = model({2, 3}), model({2, 3})
    run(tmp_path / "two", FP16.model_copy(update={"steps": 2, "lr_drops": ()}), model=after_two, evaluate=None)
    run(tmp_path / "four", FP16.model_copy(update={"steps": 4, "lr_drops": ()}), model=after_four, evaluate=None)
    torch.testing.assert_close(after_four.state_dict(), after_two.state_dict(), rtol=0, atol=0)
    (line,) = lines(tmp_path / "four")
    assert (line["loss_scale"], line["skipped_steps"]) == (65536 / 4, 2)
    assert line["gradient_norm"] is not None, "the mean of the steps that were made"


def test_an_interval_of_overflows_has_no_gradient_norm(tmp_path: Path) -> None:
    run(tmp_path, FP16, model=model({4, 5, 6, 7}))
    assert [line["gradient_norm"] is None for line in lines(tmp_path)] == [False, True, False]


class Killed(BaseException):
    """Ends a run as SIGKILL does."""


@pytest.mark.parametrize("batch", [9, 14])
def test_scale_and_count_are_resumed_exactly(tmp_path: Path, batch: int) -> None:
    def batches(first: int) -> Iterator[ToyBatch]:
        for index, value in enumerate(toy_batches(first), start=first):
            if index == batch:
                raise Killed
            yield value

    config = FP16.model_copy(update={"checkpoint_every": 3, "ema_decay": 0.5})
    run(tmp_path / "whole", config, model=model({2, 5, 8}))
    with pytest.raises(Killed):
        run(tmp_path / "killed", config, model=model({2, 5, 8}), batches=batches)
    run(tmp_path / "killed", config, model=model({2, 5, 8}), resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True)["training"] for name in ("killed", "whole"))
    assert ours["scaler"] == theirs["scaler"] == {"scale": 65536 / 8, "steps_since_change": 3}
    assert ours["progress"]["skipped_steps"] == 3
    torch.testing.assert_close(ours["ema"], theirs["ema"], rtol=0, atol=0)


def test_a_run_that_has_only_skipped_is_resumed(tmp_path: Path) -> None:
    """The optimizer has no state yet, and needs none."""
    config = FP16.model_copy(update={"steps": 1, "lr_drops": ()})
    run(tmp_path, config, model=model({0}))
    run(tmp_path, config.model_copy(update={"steps": 3}), model=model({0}), resume=True)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["training"]["optimizer"]["state"]


def test_gradients_that_no_scale_helps_end_the_run(tmp_path: Path) -> None:
    trained = model(set(range(40)))
    with pytest.raises(TrainingError, match=r"step 27: the gradients are not finite in fp16, whatever .* bf16 or fp32"):
        run(tmp_path, FP16.model_copy(update={"steps": 40, "eval_every": 0}), model=trained)
    assert all(parameter.isfinite().all() for parameter in trained.parameters())


def test_a_loss_that_is_not_finite_is_no_overflow(tmp_path: Path) -> None:
    class Bad(ToyModel):
        def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
            losses = super().forward(batch)
            return losses | {"near": losses["near"] / 0}

    with pytest.raises(TrainingError, match=r"step 1: loss 'near' is inf; images: 0.jpg"):
        run(tmp_path, FP16, model=Bad())


def test_a_checkpoint_of_another_precision(tmp_path: Path) -> None:
    run(tmp_path)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert last["training"]["scaler"] is None
    for config in (last["training"]["scheduler"]["config"], last["metadata"]["config"]["train"]):
        config["precision"] = "fp16"  # `auto` may be fp32 here and fp16 there
    torch.save(last, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"cannot be resumed in fp16: it lacks training.scaler"):
        run(tmp_path, FP16.model_copy(update={"steps": 14}), resume=True)


def test_what_auto_began_in_fp32_goes_on_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU for which `auto` is fp16 now, and was fp32 in earlier versions."""
    config = CONFIG.model_copy(update={"precision": "auto", "checkpoint_every": 3})
    monkeypatch.setattr(train, "resolve_precision", lambda precision, device: None)
    run(tmp_path / "whole", config)
    run(tmp_path / "parts", config.model_copy(update={"steps": 9}))
    monkeypatch.setattr(train, "resolve_precision", lambda precision, device: torch.float16)
    run(tmp_path / "parts", config, resume=True)
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("parts", "whole"))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan"), "1", None])
def test_a_scale_that_cannot_be(tmp_path: Path, scale: object) -> None:
    run(tmp_path, FP16.model_copy(update={"steps": 1, "lr_drops": ()}))
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    last["training"]["scaler"]["scale"] = scale
    torch.save(last, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"training.scaler.scale"):
        run(tmp_path, FP16.model_copy(update={"steps": 2, "lr_drops": ()}), resume=True)


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), None)])
def test_auto_takes_fp16_only_where_bf16_is_not(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype | None
) -> None:
    """Of two GPUs in a machine it is the one that is meant that decides."""
    capabilities = {torch.device("cuda:0"): (12, 0), torch.device("cuda:1"): capability}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert resolve_precision("auto", "cuda:1") is expected
    assert resolve_precision("fp16", "cuda:1") is torch.float16


def test_no_cpu_takes_fp16_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_native_bf16", lambda device: False)
    assert resolve_precision("auto", CPU) is None


def test_only_fp16_scales() -> None:
    bad = torch.tensor(float("inf"))
    assert [overflowed(build_scaler(CPU, dtype), bad) for dtype in (None, torch.bfloat16, torch.float16)] == [
        False,
        False,
        True,
    ]
    assert not overflowed(build_scaler(CPU, torch.float16), torch.tensor(3.0))
