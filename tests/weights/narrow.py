"""A network of a few hundred weights, and the two runs whose checkpoints lie in `files`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Backbone, C4Head, C4Trunk, freeze_batch_norm, register_backbone, split_modules
from backbones.options import BackboneOptions
from detection.config import ClassifierConfig, Config
from detection.structures import Batch, Target
from tests.pretraining.class_folders import make_config

WIDTHS = (3, 4, 4, 6, 8, 8)
CLASSES = ("disc", "square")
SIZE = 64


class Narrow(Backbone):
    """Five convolutions that halve the image."""

    classifier_keys = ("fc.weight", "fc.bias")

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        for number, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            self.add_module(f"stage{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
        self.fc = nn.Linear(WIDTHS[-1], num_classes) if num_classes else None
        self.channels = {f"c{number}": WIDTHS[number] for number in range(2, 6)}
        self.strides = {f"c{number}": 2**number for number in range(2, 6)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, maps = images, {}
        for number in range(1, 6):
            x = maps[f"c{number}"] = self.get_submodule(f"stage{number}")(x)
        return {name: maps[name] for name in self.channels}

    def logits(self, images: Tensor) -> Tensor:
        assert self.fc is not None
        return self.fc(self(images)["c5"].mean((2, 3)))

    def split_c4(self) -> tuple[C4Trunk, C4Head]:
        return split_modules(self, trunk=["stage1", "stage2", "stage3", "stage4"], head=["stage5"])


@register_backbone
def narrow(options: BackboneOptions) -> Narrow:
    net = Narrow(options.num_classes)
    if options.norm == "frozen_bn":
        freeze_batch_norm(net)
    return net


def detector_config(steps: int) -> Config:
    """A detector's run with averaged weights, of which the file holds the first steps."""
    return Config.model_validate(
        {
            "model": {"backbone": "narrow", "freeze_stages": 0},
            "rpn": {"channels": 8, "anchor_sizes": [16, 32], "min_size": 4, "post_nms_train": 40, "sample_size": 32},
            "roi": {"pool_size": 4, "sample_size": 16, "pooling": "align", "sampling_ratio": 2, "negative_iou": [0, 0.5]},
            "data": {"classes": CLASSES},
            "train": {
                "batch_size": 2,
                "images_per_device": 2,
                "steps": steps,
                "learning_rate": 0.02,
                "warmup_steps": 2,
                "lr_drops": [3],
                "ema_decay": 0.5,
                "precision": "fp32",
                "log_every": 2,
                "checkpoint_every": 100,
                "eval_every": 0,
            },
            "test": {"shorter_side": SIZE, "longer_side": SIZE, "score_threshold": 0.0},
            "output_dir": "run",
        }
    )


def batches(first: int) -> Iterator[Batch]:
    """Two images of noise with a box each; a pure function of the number."""
    number = first
    while True:
        random = torch.Generator().manual_seed(number)
        images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)
        corners = torch.rand(2, 2, generator=random) * 30
        boxes = torch.cat([corners, corners + 20], dim=1)
        targets = [Target(boxes[i : i + 1], torch.tensor([i]), torch.zeros(0, 4)) for i in range(2)]
        yield Batch(images, [(SIZE, SIZE)] * 2, targets, [f"{number}-{i}.jpg" for i in range(2)])
        number += 1


def classifier_config(steps: int) -> ClassifierConfig:
    """A classifier's run on the images of `class_folders` in "set", with a mean image."""
    train = {"steps": steps, "images_per_device": 4, "batch_size": 4, "lr_drops": [3]}
    config = make_config(Path("set"), Path("run"), model={"backbone": "narrow"}, data={"mean_image": True}, train=train)
    return config.model_copy(update={"bn_images": 8})
