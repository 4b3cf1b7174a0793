"""What a run learns on its way: plateaus, the end of a warm-up that waits, averaged weights; and that it survives a stop."""

from pathlib import Path

import pytest
import torch

from detection.engine.loop import total_loss
from detection.engine.train import train
from tests.engine.test_train import lines
from tests.engine.toy import CONFIG, ToyModel, run, toy_batches, toy_metadata


def test_what_is_only_measured_is_not_minimised():
    assert total_loss({"a": torch.tensor(2.0), "train_error": torch.tensor(9.0), "b": torch.tensor(1.0)}) == 3


def test_the_rate_drops_where_evaluations_bring_nothing(tmp_path):
    config = CONFIG.model_copy(
        update={"schedule": "plateau", "plateau_patience": 2, "eval_every": 2, "log_every": 1, "warmup_steps": 0, "steps": 14}
    )
    values = iter([1.0, 2.0, 1.5, 1.4, 3.0, 2.0, 2.5])
    run(tmp_path, config, evaluate=lambda _: {"AP": next(values)})
    rates = [line["learning_rate"] / CONFIG.learning_rate for line in lines(tmp_path, "train")]
    # Evaluated after steps 2, 4, ...: better at 4, not at 6 and 8, better at 10, not at 12 and 14.
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 6)


def test_the_rate_waits_for_the_training_error(tmp_path):
    config = CONFIG.model_copy(update={"log_every": 2, "warmup_steps": 0, "lr_drops": (), "steps": 10})
    errors = iter([0.95, 0.85, 0.7, 0.9, 0.9])
    train(
        ToyModel(),
        toy_batches,
        config,
        tmp_path,
        metadata=toy_metadata({}),
        warm_up_is_over=lambda line: next(errors) < 0.8,
    )
    rates = [line["learning_rate"] / config.learning_rate for line in lines(tmp_path, "train")]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 1, 1])


def test_averaged_weights_follow_the_formula_and_are_what_is_kept(tmp_path):
    decay, seen = 0.75, []
    config = CONFIG.model_copy(update={"ema_decay": decay, "steps": 3, "warmup_steps": 0, "lr_drops": ()})
    torch.manual_seed(7)
    model = ToyModel()
    trained = model.get_parameter("layers.0.weight")
    expected = trained.detach().clone()

    def noting(first):
        for batch in toy_batches(first):
            seen.append(trained.detach().clone())
            yield batch

    run(tmp_path, config, model=model, batches=noting)
    final = torch.load(tmp_path / "last.pt")["model"]["layers.0.weight"]
    for weight in [*seen[2::2], final]:  # two micro-batches a step
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(trained.detach(), expected)
    torch.testing.assert_close(torch.load(tmp_path / "best.pt")["model"]["layers.0.weight"], expected)


def test_a_resumed_run_has_the_same_average_drops_and_warmth(tmp_path: Path):
    config = CONFIG.model_copy(
        update={
            "ema_decay": 0.9,
            "schedule": "plateau",
            "eval_every": 2,
            "checkpoint_every": 2,
            "warmup_steps": 0,
            "lr_drops": (),
        }
    )

    def worse(model):
        return {"AP": 0.0}

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, config.model_copy(update={"steps": 8}), evaluate=worse)
    run(parts, config.model_copy(update={"steps": 4}), evaluate=worse)
    run(parts, config.model_copy(update={"steps": 8}), evaluate=worse, resume=True)
    one, two = (torch.load(folder / "last.pt")["training"] for folder in (whole, parts))
    assert one["progress"]["drops"] == two["progress"]["drops"] == 3
    for key in one["ema"]:
        torch.testing.assert_close(one["ema"][key], two["ema"][key], rtol=0, atol=0)
