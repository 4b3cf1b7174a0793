"""A backbone of this project in a program of your own: a small network that says for each pixel whether it is sky.

python docs/examples/backbone_elsewhere.py                                   a minute on a CPU, from random numbers
python docs/examples/backbone_elsewhere.py --weights torchvision/resnet18    with ImageNet's weights, downloaded once

Only `backbones` is imported, never `detection`: the feature maps, their channels and strides, and the preprocessing that
the weights expect are all that another task needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import Backbone, build_backbone


class PixelClassifier(nn.Module):
    """One score for each pixel, from the maps c3 and c5 of any backbone."""

    def __init__(self, backbone: Backbone, width: int = 32) -> None:
        super().__init__()
        self.backbone = backbone
        self.reduce = nn.ModuleDict({name: nn.Conv2d(backbone.channels[name], width, 1) for name in ("c3", "c5")})
        self.score = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N, 3, H, W) -> logits (N, H, W)."""
        maps = self.backbone(self.backbone.preprocessing.normalize(images))
        fine = self.reduce["c3"](maps["c3"])
        coarse = F.interpolate(self.reduce["c5"](maps["c5"]), fine.shape[2:], mode="nearest")
        return F.interpolate(self.score(F.relu(fine + coarse)), images.shape[2:], mode="bilinear")[:, 0]


def main(argv: Sequence[str] | None = None) -> float:
    """Train on made-up horizons; returns the share of pixels that are classified correctly afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--weights", metavar="FILE", help="a file, or a name such as torchvision/resnet18")
    parser.add_argument("--steps", type=int, default=60, help="default: %(default)s")
    options = parser.parse_args(argv)

    torch.manual_seed(0)
    # With weights the norms are constants, as in a detector; without, they have to learn.
    backbone = build_backbone(options.backbone, options.weights, norm="frozen_bn" if options.weights else "bn")
    model = PixelClassifier(backbone)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(options.steps):
        images, is_sky = horizons(8)
        loss = F.binary_cross_entropy_with_logits(model(images), is_sky.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    images, is_sky = horizons(16)
    with torch.inference_mode():
        correct = ((model.eval()(images) > 0) == is_sky).float().mean().item()
    print(f"{100 * correct:.1f} % of the pixels are correct")
    return correct


def horizons(count: int, side: int = 64) -> tuple[Tensor, Tensor]:
    """Noisy pictures (N, 3, side, side), bluish above a random horizon and brownish below, and where the sky is."""
    rows = torch.arange(side)[None, :, None]
    is_sky = (rows < torch.randint(side // 4, 3 * side // 4, (count, 1, 1))).expand(count, side, side)
    sky, ground = torch.tensor([120, 160, 220]), torch.tensor([120, 90, 60])
    clean = torch.where(is_sky[..., None], sky, ground).permute(0, 3, 1, 2)
    noisy = clean + torch.randint(-60, 60, clean.shape)
    return noisy.clamp(0, 255).to(torch.uint8), is_sky


if __name__ == "__main__":
    main()
