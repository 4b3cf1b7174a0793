"""How strongly each layer responds (section 4.2, figure 7): the standard deviation of the outputs of the BN after each 3x3
convolution, before the ReLU or the addition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backbones.modes import evaluating
from detection.analysis.plots import curve_colors, new_figure, save_figure
from detection.config import ClassifierConfig
from detection.device import find_device
from detection.errors import CheckpointError, DatasetError
from detection.fonts import plot_families, plot_text
from detection.pretraining.data import ImageBatch, test_loader, validation_split
from detection.pretraining.model import ClassificationModel, load_classifier


class LayerResponse(NamedTuple):
    """A 3x3 convolution's name, and the standard deviation of its BN's output over all images, channels and cells."""

    layer: str
    deviation: float


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
def layer_responses(model: ClassificationModel, batches: Iterable[ImageBatch]) -> list[LayerResponse]:
    """The response of each layer, in the network's order, BN working with its stored statistics.

    Raises DatasetError without images, CheckpointError for a network without BN after 3x3 convolutions.
    """
    layers = _measurable_layers(model)
    moments = {name: _Moments() for name in layers}
    # At once, in the hook: the ReLU and the addition that follow work in place.
    hooks = [
        norm.register_forward_hook(lambda _, inputs, output, seen=moments[name]: seen.add(output))
        for name, norm in layers.items()
    ]
    try:
        device = next(model.parameters()).device
        with evaluating([model]):
            for batch in batches:
                model.logits(batch.images.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    if any(seen.count == 0 for seen in moments.values()):
        raise DatasetError("there is no image to measure layer responses on")
    return [LayerResponse(name, seen.deviation()) for name, seen in moments.items()]


def _measurable_layers(model: ClassificationModel) -> dict[str, nn.Module]:
    """`normed_3x3_layers`. Raises CheckpointError where there are none."""
    layers = normed_3x3_layers(model.backbone)
    if not layers:
        raise CheckpointError("the network has no BN after 3x3 convolutions: it has no responses as the paper measures them")
    return layers


def even_selection(count: int, at_most: int) -> list[int]:
    """At most `at_most` of `count` indices, evenly spread, as neighbours are often of one class."""
    if count == 0:
        return []
    number = min(at_most, count)
    indices: list[int] = (np.arange(number) * count // number).tolist()
    return indices


def responses_of_checkpoints(
    paths: Sequence[Path], config: ClassifierConfig, max_images: int, device: str = "auto"
) -> tuple[int, list[list[LayerResponse]]]:
    """The number of images, and the layer responses of each checkpoint's own network to them.

    The images are an even selection of at most `max_images` validation images; the networks compute on `device`. Raises
    ConfigError for one that cannot be used, CheckpointError naming the file that
    cannot be used, all being loaded before the first is measured; DatasetError for bad data.
    """
    split = validation_split(config)
    selected = split.subset(even_selection(len(split), max_images))
    models = []
    for path in paths:
        models.append(load_classifier(path, config.model, split.class_names, as_recorded=True))
        with _naming(path):
            _measurable_layers(models[-1])
    place = find_device(device)
    found = []
    for path, model in zip(paths, models, strict=True):
        with _naming(path):
            found.append(layer_responses(model.to(place), test_loader(selected, config)))
        model.cpu()
    return len(selected), found


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before a CheckpointError."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def mean_response(responses: Sequence[LayerResponse]) -> float:
    """The mean of a network's standard deviations."""
    return sum(response.deviation for response in responses) / len(responses)


def plot_layer_responses(networks: Mapping[str, Sequence[LayerResponse]], file: Path) -> None:
    """Draw figure 7's two panels, the layers in their order and sorted by magnitude; networks are named by their labels."""
    from matplotlib.ticker import MaxNLocator

    figure, families = new_figure(9, 7), plot_families(networks)
    panels = figure.subplots(2, 1)
    for panel, title in zip(panels, ("layers in their order", "layers sorted by magnitude"), strict=True):
        for color, (label, responses) in zip(curve_colors(len(networks)), networks.items(), strict=True):
            values = [response.deviation for response in responses]
            drawn = values if panel is panels[0] else sorted(values, reverse=True)
            panel.plot(range(1, len(drawn) + 1), drawn, ".-", color=color, label=plot_text(label), linewidth=1.3, markersize=4)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))  # half layers do not exist
        panel.set(xlabel=title, ylabel="standard deviation")
        panel.grid(alpha=0.3)
        panel.legend(prop={"family": families} if families else None)
    save_figure(figure, file)
