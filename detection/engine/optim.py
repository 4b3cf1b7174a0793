"""The solver: SGD with momentum or AdamW, and a learning rate that is a pure function of the step.

A step is one optimizer update. It sees images_per_device x processes x accumulate images, the total batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from detection.config import TrainConfig
from detection.engine.layer_rates import rate_factors
from detection.errors import TrainingError

RATE_FACTOR = "rate_factor"
"""Key of a parameter group: what the run's learning rate is multiplied by for it."""

FUSED_ON = ("cpu", "cuda")
"""Devices whose fused optimizers the oldest supported torch has."""


def build_optimizer(model: nn.Module, config: TrainConfig, dtype: torch.dtype | None = None) -> torch.optim.Optimizer:
    """`train.optimizer` over the parameters that require a gradient, for a run in `dtype` (None: float32). Raises TrainingError
    where nothing is to be trained."""
    groups = parameter_groups(model, config)
    if not groups:
        raise TrainingError("the model has no trainable parameter; lower model.freeze_stages")
    # One pass over the weights per step, where the device has it; the plain optimizers take four to eight. Of a step that fp16
    # skips a fused one makes buffers that are not filled.
    parameters = [parameter for group in groups for parameter in group["params"]]
    fused = dtype != torch.float16 and all(parameter.device.type in FUSED_ON for parameter in parameters)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused)


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """The trained parameters by the factor of their rate, the greatest first; norms and biases apart, which are not decayed."""
    factors = rate_factors(model, config)
    trained = [(factors[name], parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = []
    for factor in sorted({factor for factor, _ in trained}, reverse=True):
        alike = [parameter for own, parameter in trained if own == factor]
        # Scales and offsets of norms and biases are exactly the parameters with fewer than two dimensions.
        groups += [
            {"params": [p for p in alike if p.ndim > 1], "weight_decay": config.weight_decay, RATE_FACTOR: factor},
            {"params": [p for p in alike if p.ndim <= 1], "weight_decay": 0.0, RATE_FACTOR: factor},
        ]
    return [group for group in groups if group["params"]]


def learning_rate(step: int, config: TrainConfig, *, drops: int = 0, warm: bool = True) -> float:
    """The rate of step 0, 1, ... of a (scaled) config: the plateau or cosine, times the linear warm-up.

    What the step does not tell: how often a "plateau" schedule has dropped the rate, and whether a warm-up that waits for
    the training error (section 4.2) is over.
    """
    if config.schedule == "cosine":
        rate = config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1.0)))
    else:
        if config.schedule == "step":
            drops = sum(step >= drop for drop in config.lr_drops)
        rate = config.learning_rate * config.lr_drop_factor**drops
    if not warm:
        return rate * config.warmup_factor
    if step >= config.warmup_steps:
        return rate
    return rate * (config.warmup_factor + (1 - config.warmup_factor) * step / config.warmup_steps)


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average of the weights and BN statistics, beginning with the model's own; None for decay 0."""
    if decay == 0:
        return None
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    ema.n_averaged += 1  # the first update averages already, instead of copying
    return ema


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this rate, times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[RATE_FACTOR]


def current_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate that was set last, without the groups' factors."""
    first = optimizer.param_groups[0]
    return float(first["lr"] / first[RATE_FACTOR])


def total_batch(config: TrainConfig, world_size: int) -> int:
    """Images an optimizer step sees, over all processes."""
    return config.micro_batch * world_size * config.accumulate


def scale_schedule(config: TrainConfig, world_size: int) -> TrainConfig:
    """The linear scaling rule: the config with rates and steps for the total batch instead of `batch_size`.

    With factor = total batch / batch_size, the rate is multiplied by it and steps, lr_drops, warmup_steps and eval_every
    are divided by it, so that as many images are seen at each rate. The result's `batch_size` is the total batch; scaling
    it again changes nothing. log_every and checkpoint_every are about time, not images: they stay.
    """
    total = total_batch(config, world_size)
    if total == config.batch_size:
        return config
    factor = total / config.batch_size
    return config.model_copy(
        update={
            "batch_size": total,
            "learning_rate": config.learning_rate * factor,
            "steps": _divide_steps(config.steps, factor),
            "lr_drops": tuple(_divide_steps(drop, factor) for drop in config.lr_drops),
            "warmup_steps": _divide_steps(config.warmup_steps, factor),
            "eval_every": _divide_steps(config.eval_every, factor),
        }
    )


def _divide_steps(steps: int, factor: float) -> int:
    """Steps / factor, rounded, but never rounded down to none."""
    return max(1, round(steps / factor)) if steps else 0


def describe_schedule(nominal: TrainConfig, scaled: TrainConfig) -> str:
    """What the scaling did, as a sentence for the log."""
    factor = scaled.batch_size / nominal.batch_size
    return (
        f"{scaled.batch_size} images per step (the config is meant for {nominal.batch_size}): "
        f"learning rate {nominal.learning_rate:g} x {factor:g} = {scaled.learning_rate:g}, "
        f"steps {nominal.steps} / {factor:g} = {scaled.steps}, "
        f"lr_drops {list(scaled.lr_drops)}, warm-up {scaled.warmup_steps} steps"
    )


def gradient_norm(model: nn.Module, clip_norm: float | None) -> Tensor:
    """The norm of the whole gradient before clipping, a scalar on its device. Scales the gradient down to `clip_norm`."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if clip_norm is not None:
        return nn.utils.clip_grad_norm_(parameters, clip_norm)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
