"""The solver: rates computed by hand, the linear scaling rule, and what is decayed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from detection.config import TrainConfig
from detection.engine.optim import build_optimizer, describe_schedule, gradient_norm, learning_rate, scale_schedule
from detection.errors import TrainingError


def test_step_schedule_with_warmup() -> None:
    config = TrainConfig(learning_rate=0.1, steps=100, lr_drops=(60, 80), warmup_steps=10, warmup_factor=0.2)
    expected = {0: 0.02, 5: 0.06, 9: 0.092, 10: 0.1, 59: 0.1, 60: 0.01, 79: 0.01, 80: 0.001, 99: 0.001}
    for step, rate in expected.items():
        assert learning_rate(step, config) == pytest.approx(rate)


def test_cosine_schedule() -> None:
    config = TrainConfig(learning_rate=0.1, steps=100, schedule="cosine", warmup_steps=10, warmup_factor=0.0)
    assert learning_rate(0, config) == 0
    assert learning_rate(50, config) == pytest.approx(0.05)
    assert learning_rate(5, config) == pytest.approx(0.5 * 0.1 * 0.5 * (1 + math.cos(math.pi * 0.05)))
    assert learning_rate(100, config) == pytest.approx(0)


def test_linear_scaling_keeps_the_images_seen() -> None:
    nominal = TrainConfig(
        batch_size=8, learning_rate=0.008, steps=1000, lr_drops=(600, 800), warmup_steps=10, eval_every=100, log_every=20
    )
    scaled = scale_schedule(nominal, world_size=1)  # one image a step
    assert (scaled.batch_size, scaled.learning_rate, scaled.steps) == (1, pytest.approx(0.001), 8000)
    assert (scaled.lr_drops, scaled.warmup_steps, scaled.eval_every) == ((4800, 6400), 80, 800)
    assert (scaled.log_every, scaled.checkpoint_every) == (nominal.log_every, nominal.checkpoint_every)
    assert "learning rate 0.008 x 0.125 = 0.001, steps 1000 / 0.125 = 8000" in describe_schedule(nominal, scaled)


def test_scaling_counts_processes_and_accumulation() -> None:
    nominal = TrainConfig(batch_size=8, images_per_device=2, accumulate=2, steps=100)
    assert scale_schedule(nominal, world_size=2) == nominal
    doubled = scale_schedule(nominal, world_size=4)
    assert (doubled.steps, doubled.learning_rate) == (50, pytest.approx(2 * nominal.learning_rate))
    assert scale_schedule(doubled, world_size=4) == doubled


def test_scaling_never_leaves_nothing_to_do() -> None:
    scaled = scale_schedule(TrainConfig(batch_size=1, images_per_device=64, steps=3, warmup_steps=0), world_size=1)
    assert (scaled.steps, scaled.warmup_steps) == (1, 0)


def test_norms_and_biases_are_not_decayed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    model[2].weight.requires_grad_(False)
    decayed, free = build_optimizer(model, TrainConfig(weight_decay=0.1, momentum=0.8)).param_groups
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight)]
    assert [id(p) for p in free["params"]] == [id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[2].bias)]
    assert (decayed["weight_decay"], free["weight_decay"], free["momentum"]) == (0.1, 0.0, 0.8)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(TrainingError, match="no trainable parameter"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), TrainConfig())


@pytest.mark.parametrize(("clip_norm", "after"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_gradient_norm_and_clipping(clip_norm: float | None, after: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert gradient_norm(model, clip_norm).item() == pytest.approx(5)
    assert model.weight.grad.norm().item() == pytest.approx(after, rel=1e-4)
