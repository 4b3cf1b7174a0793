"""How strongly each layer responds (section 4.2, figure 7): the standard deviation of what a 3x3 convolution's BN gives out,
before the ReLU or the addition.

N images, C channels, H x W cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detection.config import ClassifierConfig
from detection.errors import CheckpointError, DatasetError
from detection.pretraining.data import ImageBatch, test_loader, validation_split
from detection.pretraining.model import ClassificationModel, load_classifier, recorded_network


@dataclass
class _Moments:
    """Sums over all values of a layer, in float64."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor) -> None:
        wide = values.detach().double()
        self.count += wide.numel()
        self.total += float(wide.sum())
        self.squares += float(wide.square().sum())

    def deviation(self) -> float:
        mean = self.total / self.count
        return max(self.squares / self.count - mean**2, 0.0) ** 0.5


def normed_3x3_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The BN after each 3x3 convolution by the convolution's name, in the network's order: `bn1` belongs to `conv1`."""
    modules = dict(network.named_modules())
    pairs = {}
    for name, module in modules.items():
        head, _, last = name.rpartition(".")
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and last.startswith("conv"):
            norm = modules.get(f"{head}.{last.replace('conv', 'bn')}".lstrip("."))
            if norm is not None:
                pairs[name] = norm
    return pairs


@torch.no_grad()
def layer_responses(model: ClassificationModel, batches: Iterable[ImageBatch]) -> list[tuple[str, float]]:
    """(layer, standard deviation over all images, channels and cells) in the network's order, BN at its stored statistics.

    Raises DatasetError without images, CheckpointError for a network without BN after 3x3 convolutions.
    """
    layers = _measurable_layers(model)
    moments = {name: _Moments() for name in layers}
    # At once, in the hook: the ReLU and the addition that follow work in place.
    hooks = [
        norm.register_forward_hook(lambda _, inputs, output, seen=moments[name]: seen.add(output))
        for name, norm in layers.items()
    ]
    training = model.training
    model.eval()
    try:
        device = next(model.parameters()).device
        for batch in batches:
            model.logits(batch.images.to(device))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    if any(seen.count == 0 for seen in moments.values()):
        raise DatasetError("there is no image to measure layer responses on")
    return [(name, seen.deviation()) for name, seen in moments.items()]


def _measurable_layers(model: ClassificationModel) -> dict[str, nn.Module]:
    """`normed_3x3_layers`. Raises CheckpointError where there are none."""
    layers = normed_3x3_layers(model.backbone)
    if not layers:
        raise CheckpointError("the network has no BN after 3x3 convolutions: it has no responses as the paper measures them")
    return layers


def even_selection(count: int, most: int) -> list[int]:
    """`most` of `count` indices (all of them where they are fewer), evenly spread: neighbours are of one class."""
    chosen: list[int] = (np.arange(min(most, count)) * count // min(most, count)).tolist() if count else []
    return chosen


def responses_of_checkpoints(
    paths: Sequence[Path], config: ClassifierConfig, most: int
) -> tuple[int, list[list[tuple[str, float]]]]:
    """The number of images, and `layer_responses` of each checkpoint's own network on them.

    The images are an even selection of at most `most` validation images. Raises CheckpointError naming the file that
    cannot be used, all being loaded before the first is measured; DatasetError for bad data.
    """
    split = validation_split(config)
    chosen = split.part(even_selection(len(split), most))
    models = []
    for path in paths:
        models.append(load_classifier(path, recorded_network(path, config.model), split.class_names))
        with _naming(path):
            _measurable_layers(models[-1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = []
    for path, model in zip(paths, models, strict=True):
        with _naming(path):
            found.append(layer_responses(model.to(device), test_loader(chosen, config)))
        model.cpu()
    return len(chosen), found


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def summary(layers: list[tuple[str, float]]) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "mean": sum(value for _, value in layers) / len(layers),
        "layers": [{"name": name, "std": round(value, 5)} for name, value in layers],
    }
