"""Losses of the validation split: what they are, and that measuring them moves nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from detection.config import TrainConfig
from detection.engine.advice import advise_schedule
from detection.engine.state import seed_everything
from tests.engine.test_resume import Killed, assert_same_run, logged
from tests.engine.test_train import lines
from tests.engine.toy import CONFIG, ToyBatch, ToyModel, run, toy_batch


class Normalised(ToyModel):
    """With a trainable batch norm, dropout, and a value that is only logged."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch: ToyBatch) -> dict[str, torch.Tensor]:
        losses = super().forward(ToyBatch(self.dropout(self.norm(batch.points)), batch.files))
        return losses | {"train_size": torch.tensor(float(len(batch)))}


def validation_batches() -> Iterator[ToyBatch]:
    """Four images and one: means are of images, not of batches."""
    torch.rand(3)  # as a loader draws the seeds of its workers
    yield toy_batch(100)
    yield toy_batch(200, size=1)


def model() -> Normalised:
    torch.manual_seed(7)
    return Normalised()


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_run_with_them_is_the_run_without_them_bit_for_bit(tmp_path: Path, decay: float) -> None:
    config = CONFIG.model_copy(update={"ema_decay": decay})
    run(tmp_path / "without", config, model=model())
    run(tmp_path / "with", config, model=model(), validation_batches=validation_batches)
    with_losses, without = (torch.load(tmp_path / name / "last.pt")["training"] for name in ("with", "without"))
    (ours,), (theirs,) = with_losses["rng"], without["rng"]
    assert torch.equal(ours["torch"], theirs["torch"]) and torch.equal(ours["numpy"][1], theirs["numpy"][1])
    assert ours["python"] == theirs["python"]
    torch.testing.assert_close(with_losses["ema"], without["ema"], rtol=0, atol=0)
    log = logged(tmp_path / "with")
    for line in lines(tmp_path / "with", "evaluation"):
        assert line.keys() == {"kind", "step", "metrics", "val_loss", "val_losses"}
    (tmp_path / "with/metrics.jsonl").write_bytes((tmp_path / "without/metrics.jsonl").read_bytes())
    assert_same_run(tmp_path / "with", tmp_path / "without")
    assert [line for line in log if line["kind"] == "train"] == [
        line for line in logged(tmp_path / "without") if line["kind"] == "train"
    ]


def test_their_values_are_means_over_the_images_in_eval_mode(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": 6})
    trained = model()
    run(tmp_path, config, model=trained, validation_batches=validation_batches)
    trained.eval()
    expected = dict.fromkeys(("far", "near"), 0.0)
    for number, batch in enumerate([toy_batch(100), toy_batch(200, size=1)]):
        seed_everything(config.seed, number, 0)
        with torch.no_grad():
            for name, loss in trained(batch).items():
                if name in expected:
                    expected[name] += float(loss) * len(batch) / 5
    (line,) = lines(tmp_path, "evaluation")
    assert line["val_losses"] == pytest.approx(expected, rel=1e-6)
    assert line["val_loss"] == pytest.approx(sum(expected.values()), rel=1e-6)


def test_equal_weights_have_equal_losses_at_each_evaluation(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e-30, "eval_every": 3})
    run(tmp_path, config, validation_batches=validation_batches)
    losses = [line["val_losses"] for line in lines(tmp_path, "evaluation")]
    assert len(losses) == 4 and losses.count(losses[0]) == 4


def test_they_are_curves_and_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, validation_batches=validation_batches)
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    losses = [line["val_loss"] for line in lines(tmp_path, "evaluation")]
    assert [point.value for point in read.Scalars("val_loss")] == pytest.approx(losses)
    assert [point.step for point in read.Scalars("val_losses/near")] == [6, 12]
    assert f"step 12: validation loss {losses[-1]:.4f} (far " in capsys.readouterr().out


def test_one_that_is_not_finite_is_null_and_ends_nothing(tmp_path: Path) -> None:
    class Infinite(ToyModel):
        def forward(self, batch: ToyBatch) -> dict[str, torch.Tensor]:
            losses = super().forward(batch)
            return losses if self.training else losses | {"near": torch.tensor(math.inf)}

    assert run(tmp_path, model=Infinite(), validation_batches=validation_batches).steps == 12
    assert lines(tmp_path, "evaluation")[-1]["val_losses"]["near"] is None


def test_a_run_killed_while_it_measures_them_does_it_again(tmp_path: Path) -> None:
    def killing() -> Iterator[ToyBatch]:
        yield toy_batch(100)
        raise Killed

    run(tmp_path / "whole", validation_batches=validation_batches)
    with pytest.raises(Killed):
        run(tmp_path / "cut", validation_batches=killing)
    run(tmp_path / "cut", validation_batches=validation_batches, resume=True)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_without_a_validation_split_there_are_none() -> None:
    (sentence,) = advise_schedule(TrainConfig(validation_losses=10), evaluated=False)
    assert "train.validation_losses 10 has no effect" in sentence
