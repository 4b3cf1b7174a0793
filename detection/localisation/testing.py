"""Where the objects of given classes are: the per-class RPN in several views of an image, one network or several as one.

N images, C classes of each, M anchors of a view, P boxes of a class in all views. Boxes: xyxy pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from backbones.errors import shorten
from backbones.modes import evaluating, own_defaults
from detection.config.localiser import LocTestConfig
from detection.errors import ConfigError
from detection.localisation.merging import ClassBoxes
from detection.localisation.networks import LocNetwork, LocRpn
from detection.localisation.views import LocView, views_of
from detection.out_of_memory import out_of_memory_as
from detection.weights.checkpoint import require_same_classes


def find_boxes(models: Sequence[LocRpn], image: Tensor, classes: Tensor, test: LocTestConfig) -> ClassBoxes:
    """All boxes of the classes (C,) in an image (3, H, W) uint8 RGB, as `find_boxes_in_each` finds them."""
    return find_boxes_in_each(models, [image], classes[None], test)[0]


def find_boxes_in_each(
    models: Sequence[LocRpn], images: Sequence[Tensor], classes: Tensor, test: LocTestConfig
) -> list[ClassBoxes]:
    """All boxes that the RPNs give for C classes of each image: N images (3, H, W) uint8 RGB on the CPU, labels (N, C) int64.

    A class has one box per anchor of all the views of `test`, in the image's own pixels and clipped to it, on the first
    model's device. Of several models, the scores and boxes of each anchor are averaged. Views of equal size are computed
    together, of `test.batch_size` images at most.

    Raises ConfigError where the models' anchors or views differ or the memory does not suffice, CheckpointError where their
    classes differ or a network's outputs are not finite.
    """
    require_same_anchors(models, test)
    image_size = models[0].config.data.image_size
    views = [views_of((image.shape[1], image.shape[2]), test, image_size) for image in images]
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    with own_defaults(), torch.inference_mode(), evaluating(models), enough_memory(test):
        for places in _places_by_size(views, test.batch_size):
            members = [(views[owner][number], owner) for owner, number in places]
            pixels = torch.stack([view.of_image(images[owner]) for view, owner in members])
            scores, boxes = _mean_prediction(models, pixels, classes[[owner for _, owner in members]])
            for place, (view, _), row_scores, row_boxes in zip(places, members, scores, boxes, strict=True):
                found[place] = row_scores, view.to_image(row_boxes)
        return [
            _unite([found[owner, number] for number in range(len(own))], own[0].image_hw) for owner, own in enumerate(views)
        ]


def _places_by_size(views: Sequence[Sequence[LocView]], batch_size: int) -> list[list[tuple[int, int]]]:
    """Places (image, number of its view) of views that have one size, `batch_size` of them at most in each list."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for owner, own in enumerate(views):
        for number, view in enumerate(own):
            groups[view.size_hw].append((owner, number))
    return [places[start : start + batch_size] for places in groups.values() for start in range(0, len(places), batch_size)]


def _mean_prediction(models: Sequence[LocRpn], pixels: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean scores (N, C, M) and boxes (N, C, M, 4) of views (N, 3, h, w) of one size, on the first model's device."""
    found = [model.predict(pixels.to(model.device), classes.to(model.device)) for model in models]
    return mean_of([scores for scores, _ in found]), mean_of([boxes for _, boxes in found])


def enough_memory(test: LocTestConfig) -> AbstractContextManager[None]:
    """Inside, memory that runs out is a ConfigError that names the settings to lower."""
    settings = f"test.batch_size (now {test.batch_size})"
    if test.views == "dense":
        settings += f", or the largest of test.scales (now {max(test.scales)}) with test.longer_side (now {test.longer_side})"
    return out_of_memory_as(lambda: ConfigError(f"the memory does not suffice for these images. Lower {settings}"))


def mean_of(parts: Sequence[Tensor]) -> Tensor:
    """The mean of equally shaped tensors, on the first one's device; of one it is that one, to the last bit."""
    return parts[0] if len(parts) == 1 else torch.stack([part.to(parts[0].device) for part in parts]).mean(dim=0)


def _unite(parts: Sequence[tuple[Tensor, Tensor]], image_hw: tuple[int, int]) -> ClassBoxes:
    """Scores (C, M) and boxes (C, M, 4) of each view as those of the image."""
    scores, boxes = (torch.cat(list(each), dim=1) for each in zip(*parts, strict=True))
    return ClassBoxes(scores, boxes, image_hw)


def require_same_anchors(models: Sequence[LocRpn], test: LocTestConfig) -> None:
    """Raise ConfigError where the anchors or the views of several RPNs differ, CheckpointError where their classes do."""
    require_same_classes_of(models)
    first = models[0].config
    for number, model in enumerate(models[1:], start=2):
        values: list[tuple[str, object, object]] = [
            ("rpn.anchor_sizes", model.config.rpn.anchor_sizes, first.rpn.anchor_sizes),
            ("rpn.anchor_ratios", model.config.rpn.anchor_ratios, first.rpn.anchor_ratios),
        ]
        if test.views == "center":
            values.append(("data.image_size", model.config.data.image_size, first.data.image_size))
        for key, found, wanted in values:
            if found != wanted:
                raise ConfigError(
                    f"RPN {number} of the ensemble has {key}={shorten(found)}, the first {shorten(wanted)}: what they give for "
                    "an anchor cannot be averaged; take RPNs that were trained alike"
                )


def require_same_classes_of(models: Sequence[LocNetwork]) -> None:
    """Raise CheckpointError where the classes of several networks differ."""
    for number, model in enumerate(models[1:], start=2):
        require_same_classes(model.class_names, models[0].class_names, f"network {number} of the ensemble")
