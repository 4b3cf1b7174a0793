"""The loop: what it computes, writes, refuses and reports."""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detection.config import TrainConfig
from detection.engine.jsonl import rewrite_lines
from detection.engine.train import train
from detection.errors import CheckpointError, TrainingError
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batch, toy_batches, toy_metadata


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in parsed if line["kind"] == kind]


def test_a_run_leaves_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path)
    assert (result.steps, result.interrupted) == (12, False)
    assert result.metrics.keys() == {"AP", "other"}
    assert [line["step"] for line in lines(tmp_path, "train")] == [4, 8, 12]
    assert [line["step"] for line in lines(tmp_path, "evaluation")] == [6, 12]
    first = lines(tmp_path, "train")[0]
    assert first["loss"] == pytest.approx(first["losses"]["far"] + first["losses"]["near"])
    assert first["learning_rate"] == pytest.approx(0.05)
    assert {"gradient_norm", "step_time", "data_time", "images_per_second", "memory_mb"} <= first.keys()
    assert any((tmp_path / "tensorboard").iterdir())
    assert "step 12/12" in (tmp_path / "log.txt").read_text()
    assert "learning rate 0.05 x 1" in capsys.readouterr().out
    assert "seed: 0" in (tmp_path / "config.yaml").read_text()


def test_checkpoints_hold_all_that_is_promised(tmp_path: Path) -> None:
    result = run(tmp_path)
    last = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (last["format"], last["version"]) == ("resdet", 2)
    about, training = last["metadata"], last["training"]
    assert (about["kind"], about["class_names"], about["config"]["train"]["seed"]) == ("classifier", ["near", "far"], 0)
    assert json.loads(json.dumps(about)) == about
    assert {"torch", "torchvision", "resdet", "python"} <= about["versions"].keys()
    assert training["step"] == 12 and training["sampler"] == {"batch": 24, "seed": 0, "world_size": 1}
    assert training["rng"][0].keys() == {"python", "numpy", "torch", "cuda"}
    assert training["optimizer"]["state"] and training["scheduler"]["step"] == 12
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["training"]["best"] == training["best"] and training["best"]["value"] == result.best
    assert "optimizer" not in best["training"]


@pytest.mark.parametrize(("higher_is_better", "expected"), [(True, 2), (False, 6)])
def test_best_follows_the_metric(tmp_path: Path, higher_is_better: bool, expected: int) -> None:
    scores = iter([3.0, float("nan"), 1.0, 2.0])
    config = CONFIG.model_copy(update={"steps": 8, "eval_every": 2})

    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"score": next(scores)}

    run(tmp_path, config, evaluate=evaluate, best_metric="score", higher_is_better=higher_is_better)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["training"]["step"] == expected


def test_evaluation_sees_eval_mode_without_gradients_and_training_goes_on(tmp_path: Path) -> None:
    seen = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append((model.training, torch.is_grad_enabled()))
        return {"AP": 0.0}

    model = ToyModel()
    run(tmp_path, model=model, evaluate=evaluate)
    assert seen == [(False, False)] * 2
    assert model.training


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    def double(first: int) -> Iterator[ToyBatch]:
        for number in range(first, 10**6):
            yield toy_batch(number, size=8)

    models = []
    for name, batches, update in (
        ("two", toy_batches, {}),
        ("one", double, {"images_per_device": 8, "accumulate": 1}),
    ):
        torch.manual_seed(1)
        models.append(ToyModel(noisy=False))
        run(tmp_path / name, CONFIG.model_copy(update=update), model=models[-1], batches=batches)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loop_is_plain_sgd(tmp_path: Path) -> None:
    """Three steps computed again with nothing but torch."""
    torch.manual_seed(3)
    model = ToyModel(noisy=False)
    torch.manual_seed(3)
    reference = ToyModel(noisy=False)
    config = TrainConfig(batch_size=4, images_per_device=4, steps=3, learning_rate=0.1, weight_decay=0, precision="fp32")
    run(tmp_path, config, model=model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    for number in range(3):
        optimizer.zero_grad()
        sum(reference(toy_batch(number)).values()).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class Exploding(ToyModel):
    """Its second loss, or only its gradient, is not finite from the given batch on."""

    def __init__(self, at: int, gradient_only: bool = False) -> None:
        super().__init__()
        self.calls, self.at, self.gradient_only = 0, at, gradient_only

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        losses = super().forward(batch)
        self.calls += 1
        if self.calls > self.at:
            # The gradient of sqrt at 0 is infinite, its value is not.
            losses["near"] = (losses["near"] * 0).sqrt() if self.gradient_only else losses["near"] / 0
        return losses


def test_a_loss_that_is_not_finite_names_step_loss_and_files(tmp_path: Path) -> None:
    model = Exploding(at=13)  # the second micro-batch of step 7
    with pytest.raises(TrainingError, match=r"step 7: loss 'near' is inf; images: 52.jpg, 53.jpg, 54.jpg, 55.jpg\. Lower"):
        run(tmp_path, model=model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert torch.load(tmp_path / "last.pt", weights_only=True)["training"]["step"] == 6


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path) -> None:
    model = Exploding(at=3, gradient_only=True)
    with pytest.raises(TrainingError, match=r"step 2: the norm of the gradient is nan; images: 8.jpg, .*15.jpg"):
        run(tmp_path, model=model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_data_that_ends_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the training data ended at step 0"):
        run(tmp_path, batches=lambda first: iter(()))


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"holds another run \(last.pt\): resume it \(--resume\), or .*--output-dir"):
        run(tmp_path)
    assert (tmp_path / "last.pt").read_bytes() == before


def test_a_full_disk_is_one_line_and_the_old_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []

    def full(contents: Any, file: Any) -> None:
        writes.append(file)
        if len(writes) == 3:  # the first is of step 0, the second of step 5
            raise OSError(errno.ENOSPC, "No space left on device")
        save(contents, file)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="cannot write checkpoint .*last.pt: No space left on device"):
        run(tmp_path)
    monkeypatch.undo()
    assert torch.load(tmp_path / "last.pt", weights_only=True)["training"]["step"] == 5
    assert run(tmp_path, resume=True).steps == 12


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("not a folder")
    with pytest.raises(
        TrainingError, match="cannot write .*tensorboard: .*; move away what is in its place or choose another output folder"
    ):
        run(tmp_path)


def test_rewrite_lines_drops_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [f'{{"kind": "train", "step": {step}}}\n' for step in (1, 2, 3)]
    path.write_text("".join(lines) + '{"ste')
    rewrite_lines(path, lambda line: line["step"] <= 2)
    assert path.read_text() == lines[0] + lines[1]


def test_metrics_without_the_wanted_one_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="best_metric 'AP' is not among"):
        run(tmp_path, evaluate=lambda model: {"mAP": 1.0})


def test_metadata_is_not_touched(tmp_path: Path) -> None:
    metadata = toy_metadata({})
    before = copy.deepcopy(metadata)
    config = CONFIG.model_copy(update={"steps": 1})
    result = train(ToyModel(), toy_batches, config, tmp_path, metadata=metadata)
    assert metadata == before
    assert (result.metrics, result.best) == ({}, None)
