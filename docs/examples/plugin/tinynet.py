"""A backbone of five strided convolutions, for detectors and classifiers of resdet."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from backbones import Backbone, BackboneError, BackboneOptions, C4Head, C4Trunk, freeze_batch_norm, split_modules

WIDTHS = (16, 32, 64, 128, 256)


class TinyNet(Backbone):
    """stage1..stage5 halve the image each; c2..c5 are the outputs of the last four."""

    classifier_keys = ("fc.weight", "fc.bias")

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        for number, (inputs, outputs) in enumerate(pairwise((3, *WIDTHS)), start=1):
            conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            self.add_module(f"stage{number}", nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
        self.fc = nn.Linear(WIDTHS[-1], num_classes) if num_classes else None
        self.channels = {f"c{number}": WIDTHS[number - 1] for number in range(2, 6)}
        self.strides = {f"c{number}": 2**number for number in range(2, 6)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}."""
        x, maps = images, {}
        for number in range(1, 6):
            x = maps[f"c{number}"] = self.get_submodule(f"stage{number}")(x)
        return {name: maps[name] for name in self.channels}

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax: (N, 3, H, W) -> (N, num_classes)."""
        if self.fc is None:
            raise BackboneError("this TinyNet has no classifier: build it with num_classes")
        return self.fc(self(images)["c5"].mean((2, 3)))

    def split_c4(self) -> tuple[C4Trunk, C4Head]:
        """stage1..stage4 for the image, stage5 and average pooling for each region."""
        return split_modules(self, trunk=["stage1", "stage2", "stage3", "stage4"], head=["stage5"])


def build(options: BackboneOptions) -> TinyNet:
    """What the entry point names. `stride_in_1x1` and `stem_pool` change nothing: it has no 1x1 and no pool."""
    net = TinyNet(options.num_classes)
    if options.norm == "frozen_bn":
        freeze_batch_norm(net)
    net.freeze([f"stage{number}" for number in range(1, options.freeze_stages + 1)])
    return net
