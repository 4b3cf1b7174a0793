"""How a detection experiment, and each other training, is run: rates, steps, precision, processes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from backbones.errors import shorten
from detection.config.limits import (
    MAX_NUMBER,
    BatchSize,
    BelowOne,
    Fraction,
    ImagesPerDevice,
    LearningRate,
    Real,
    Seconds,
    Section,
    Steps,
    StepsOrNone,
    Whole,
    ascending,
    require,
)
from detection.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class TrainConfig(Section):
    """The solver of the classification and the detection stage. Learning rate and steps are meant for `batch_size`."""

    key: ClassVar[str] = "train"
    """What the section is called in a config, for messages."""

    batch_size: BatchSize = 8
    images_per_device: ImagesPerDevice | Literal["auto"] = Field(
        1, description="images per process and forward pass; auto: as many as a GPU's memory takes, on a CPU 1"
    )
    accumulate: Whole = Field(1, ge=1, le=100_000, description="forward passes per step")
    steps: Steps = Field(90000, description="optimizer steps")
    learning_rate: LearningRate = 0.001
    schedule: Literal["step", "cosine", "plateau"] = Field(
        "step", description="step: lower from each of lr_drops on; cosine: to zero at the end; plateau: see plateau_patience"
    )
    lr_drops: tuple[Steps, ...] = Field(
        (), max_length=1000, description="steps at which the rate is multiplied by lr_drop_factor, ascending"
    )
    lr_drop_factor: Real = Field(0.1, gt=0, le=1, description="what the learning rate is multiplied by at each drop")
    plateau_patience: Whole = Field(
        1,
        ge=1,
        le=1_000_000,
        description="evaluations without a better metric until a plateau schedule multiplies the rate by lr_drop_factor",
    )
    warmup_steps: StepsOrNone = Field(0, description="steps of linear warm-up")
    warmup_factor: Fraction = Field(0.1, description="the warm-up starts at this share of the rate")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd: with momentum; adamw: its own rates, such as 0.0001, and weight decay, such as 0.05"
    )
    momentum: BelowOne = Field(0.9, description="of SGD")
    backbone_rate: Real = Field(
        1.0, gt=0, le=1000, description="the backbone learns at this factor of the learning rate, the layers on it at the rate"
    )
    layer_decay: Real = Field(
        1.0,
        gt=0,
        le=1,
        description="each stage of the backbone learns at this factor of the rate of what follows it, down to conv1",
    )
    weight_decay: Real = Field(1e-4, ge=0, le=100, description="of all weights but those of norms and biases")
    ema_decay: BelowOne = Field(
        0.0, description="of the exponential moving average of the weights, which is what is evaluated; 0: none"
    )
    clip_norm: Real | None = Field(
        None, gt=0, le=1_000_000_000, description="the gradient is scaled down to this norm where it is larger"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bf16 autocast where the hardware computes in bf16, else fp16 on GPUs that have it, else fp32; fp16 "
        "scales the losses",
    )
    seed: Whole = Field(0, ge=0, le=MAX_NUMBER, description="of initialisation, order, augmentation and sampling")
    log_every: Steps = Field(20, description="steps between log lines")
    checkpoint_every: Steps = Field(1000, description="steps between checkpoints")
    eval_every: StepsOrNone = Field(0, description="steps between evaluations; 0: only at the end")
    stop_patience: Whole = Field(
        0, ge=0, le=1_000_000, description="evaluations without a better metric until the run ends; 0: it ends after its steps"
    )
    validation_losses: Whole = Field(
        0,
        ge=0,
        le=1_000_000,
        description="validation images whose losses each evaluation measures too, beside the training's; 0: none",
    )
    connect_timeout: Seconds = Field(
        60.0, description="seconds that the processes of a distributed run wait for each other at the start"
    )
    collective_timeout: Seconds = Field(
        86400.0, description="seconds that they wait for each other later, such as for an evaluation, which one of them does"
    )

    @property
    def micro_batch(self) -> int:
        """`images_per_device` as a number. Raises ConfigError where it is still to be found out."""
        if isinstance(self.images_per_device, str):
            raise ConfigError(
                f"{self.key}.images_per_device is 'auto', which only the training of a detector finds out: give a number"
            )
        return self.images_per_device

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        ordered = sorted(set(self.lr_drops))
        require(
            ascending(self.lr_drops),
            f"{self.key}.lr_drops must ascend, got {shorten(list(self.lr_drops))}: write {shorten(ordered)}",
        )
        require(
            self.schedule != "plateau" or self.eval_every > 0,
            f"{self.key}.schedule 'plateau' follows the evaluations: set {self.key}.eval_every",
        )
        require(
            self.stop_patience == 0 or self.eval_every > 0,
            f"{self.key}.stop_patience {self.stop_patience} counts evaluations: set {self.key}.eval_every",
        )
        return self
