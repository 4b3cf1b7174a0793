"""Settings that are allowed and seldom meant: a sentence for each, which the log of a run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from detection.config import Config, ModelConfig, TrainConfig
from detection.config.localiser import LocModelConfig
from detection.engine.layer_rates import backbone_depths


def advise_schedule(config: TrainConfig, *, evaluated: bool) -> list[str]:
    """What of the schedule will not happen as it is written. `evaluated`: whether there is a validation split."""
    steps, plateau = config.steps, config.schedule == "plateau"
    late = [drop for drop in config.lr_drops if drop >= steps]
    average = config.ema_decay > 0 and 1 / (1 - config.ema_decay) > steps
    doubts = (
        (
            config.warmup_steps >= steps,
            f"the warm-up ({config.warmup_steps} steps) is not over before the run is ({steps}): the full learning rate is "
            f"never reached; lower {config.key}.warmup_steps",
        ),
        (config.schedule == "step" and bool(late), f"{config.key}.lr_drops at {late[:3]} come after the last of {steps} steps"),
        (
            config.schedule != "step" and bool(config.lr_drops),
            f"{config.key}.lr_drops have no effect: {config.key}.schedule is '{config.schedule}'",
        ),
        (
            plateau and (not evaluated or config.eval_every >= steps),
            "the 'plateau' schedule never lowers the learning rate: nothing is evaluated before the end; "
            f"give data.val and a smaller {config.key}.eval_every",
        ),
        (
            config.optimizer == "adamw" and config.momentum != TrainConfig().momentum,
            f"{config.key}.momentum {config.momentum:g} has no effect: it is of SGD, and {config.key}.optimizer is 'adamw'",
        ),
        (
            config.optimizer == "adamw" and config.learning_rate > 0.005,
            f"{config.key}.learning_rate {config.learning_rate:g} is high for 'adamw': 0.0001 at 16 images per step is usual",
        ),
        (
            not evaluated and config.stop_patience > 0,
            f"{config.key}.stop_patience {config.stop_patience} has no effect: nothing is evaluated; give data.val",
        ),
        (
            not evaluated and config.validation_losses > 0,
            f"{config.key}.validation_losses {config.validation_losses} has no effect: nothing is evaluated; give data.val",
        ),
        (average, f"{config.key}.ema_decay {config.ema_decay:g} averages over more steps than the run has ({steps}); lower it"),
    )
    return [sentence for doubtful, sentence in doubts if doubtful]


def advise_layer_rates(model: nn.Module, config: TrainConfig) -> list[str]:
    """What of `train.backbone_rate` and `train.layer_decay` changes nothing for this model."""
    depths = backbone_depths(model)
    trained = {depth for name, depth in depths.items() if model.get_parameter(name).requires_grad}
    doubts = (
        (
            not trained and (config.backbone_rate != 1 or config.layer_decay != 1),
            f"{config.key}.backbone_rate and {config.key}.layer_decay have no effect: nothing of the backbone is trained; "
            "lower model.freeze_stages",
        ),
        (
            len(trained) > 0 and set(depths.values()) == {1} and config.layer_decay != 1,
            f"{config.key}.layer_decay is one factor for all of this backbone, which does not tell its stages (`stages`)",
        ),
    )
    return [sentence for doubtful, sentence in doubts if doubtful]


def advise_frozen(network: ModelConfig | LocModelConfig) -> list[str]:
    """Whether stages or statistics are frozen that nothing has trained. For a run that does not resume another."""
    if network.weights is not None:
        return []
    doubts = (
        (
            network.freeze_stages > 0,
            f"model.freeze_stages is {network.freeze_stages} and model.weights is null: frozen stages keep random weights; "
            "name weights, or set model.freeze_stages=0",
        ),
        (
            network.norm == "frozen_bn",
            "model.norm is frozen_bn and model.weights is null: statistics that were never measured normalise nothing, and "
            "features grow from block to block; name weights, or set model.norm=bn",
        ),
    )
    return [sentence for doubtful, sentence in doubts if doubtful]


def advise_tiles(config: Config) -> list[str]:
    """Whether a detector that learns from tiles will see larger images as a whole only, which shows it smaller objects."""
    data, test = config.data, config.test
    if not data.tile or test.tile:
        return []
    return [
        f"data.tile is {data.tile} and test.tile is 0: large images are learnt from in tiles and tested as a whole, which "
        f"shows smaller objects; set test.tile={data.tile}"
    ]


def advise_resumed(before: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What changes in the course of a run that is resumed with other settings than `before`, those of its checkpoint.

    Both are scaled to the run's batch.
    """
    steps = before.get("steps", config.steps)
    doubts = (
        (
            config.schedule == "cosine" and steps != config.steps,
            f"{config.key}.steps was {steps} and is {config.steps} now: the cosine schedule is stretched, and the learning "
            "rate jumps where the run goes on; a run of this length from the start would give other weights",
        ),
        (
            config.schedule == "plateau" and before.get("eval_every", config.eval_every) != config.eval_every,
            f"{config.key}.eval_every was {before.get('eval_every')} and is {config.eval_every} now: the 'plateau' schedule "
            "counts evaluations, and will lower the learning rate at other steps",
        ),
    )
    return [sentence for doubtful, sentence in doubts if doubtful]
