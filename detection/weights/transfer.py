"""A detector's weights for a detector of other classes, with or without context or masks, or with other anchors.

K classes, D features per RoI. Row k of `class_scores` (K + 1, D) is class k, the next is background, and `roi.unused_outputs`
may follow; rows 4k .. 4k + 3 of `box_deltas` (4K, D) are class k. With context the columns after D are for the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detection.config import Config
from detection.config.class_lists import canonical_name

State = Mapping[str, Tensor]
BOX_LAYERS = {"roi_head.class_scores": 1, "roi_head.box_deltas": 4}
"""Layers with rows for each class, and the number of rows per class."""
MASK_HEAD = "roi_head.mask_head."
MASK_LAYER = f"{MASK_HEAD}predictor"
"""A row for each class, without one for the background."""
ANCHOR_LAYERS = ("rpn.objectness", "rpn.deltas")


def transfer(source: State, source_config: Config, fresh: State, config: Config) -> tuple[dict[str, Tensor], list[str]]:
    """A state dict for a model of `config`: what has the same meaning in `source` from there, the rest from `fresh`.

    `fresh` is the model's own state dict. Also returns a sentence for everything that is not simply copied. Tensors of other
    shapes stay as they are in `source`: loading the result refuses them.
    """
    source_classes, classes = source_config.data.class_names, config.data.class_names
    state, changes = dict(source), []
    source_unused, unused = source_config.roi.unused_outputs, config.roi.unused_outputs
    others = source_config.roi.context != config.roi.context or source_unused != unused
    if list(source_classes) != list(classes) or others:
        rows = matching_classes(source_classes, classes)
        for layer, rows_per_class in BOX_LAYERS.items():
            num_others = 1 + min(source_unused, unused) if rows_per_class == 1 else 0
            fresh_rows = [None] * (unused - source_unused) if rows_per_class == 1 else []
            after = [*range(len(source_classes), len(source_classes) + num_others), *fresh_rows]
            for part in ("weight", "bias"):
                key = f"{layer}.{part}"
                if key in source:
                    state[key] = _copy_rows(source[key], fresh[key], [*rows, *after], rows_per_class)
        changes += _describe_classes(source_classes, classes, rows) + _describe_context(source_config, config)
        changes += _describe_unused(source_unused, unused)
    state, change = _transfer_masks(state, source_config, fresh, config)
    changes += change
    if _describe_anchors(source_config) != _describe_anchors(config):
        names = [f"{layer}.{part}" for layer in ANCHOR_LAYERS for part in ("weight", "bias")]
        state |= {name: fresh[name] for name in names}
        changes.append(
            f"the RPN's output layers start from random numbers, as the anchors are others: {_describe_anchors(config)}"
        )
    return state, changes


def _transfer_masks(
    state: dict[str, Tensor], source_config: Config, fresh: State, config: Config
) -> tuple[dict[str, Tensor], list[str]]:
    """The state with a mask head where the model has one: the source's, or a new one, by a sentence."""
    if not config.model.mask:
        rest = {key: value for key, value in state.items() if not key.startswith(MASK_HEAD)}
        return rest, ["the mask head is left out"] if source_config.model.mask else []
    if not source_config.model.mask:
        new = {key: value for key, value in fresh.items() if key.startswith(MASK_HEAD)}
        return state | new, ["the mask head starts from random numbers"]
    rows = matching_classes(source_config.data.class_names, config.data.class_names)
    if rows == list(range(len(source_config.data.class_names))):
        return state, []
    keys = [f"{MASK_LAYER}.{part}" for part in ("weight", "bias")]
    chosen = {key: _copy_class_rows(state[key], fresh[key], rows) for key in keys if key in state}
    return state | chosen, []


def _copy_class_rows(source: Tensor, fresh: Tensor, rows: Sequence[int | None]) -> Tensor:
    """`fresh` (K, ...) with the source's rows where `rows` names them; the source where a row has another shape."""
    if source.shape[1:] != fresh.shape[1:]:
        return source
    return torch.stack([fresh[row] if place is None else source[place] for row, place in enumerate(rows)])


def matching_classes(source_classes: Sequence[str], classes: Sequence[str]) -> list[int | None]:
    """For each class its place among the source's, or None. VOC's and COCO's names of one thing count as the same."""
    places = {canonical_name(name): place for place, name in enumerate(source_classes)}
    return [places.get(canonical_name(name)) for name in classes]


def _copy_rows(source: Tensor, fresh: Tensor, rows: Sequence[int | None], rows_per_class: int) -> Tensor:
    """`fresh` (rows, columns) with the source's rows where `rows` names them. Columns that the source lacks become zero."""
    blocks = source.reshape(-1, rows_per_class, *source.shape[1:])
    result = fresh.clone().reshape(-1, rows_per_class, *fresh.shape[1:])
    known = torch.tensor([place is not None for place in rows], device="cpu")
    chosen = blocks[torch.tensor([place for place in rows if place is not None], dtype=torch.long, device="cpu")]
    if source.ndim == 1:
        result[known] = chosen
    else:
        shared = min(source.shape[1], fresh.shape[1])
        result[known] = 0
        result[known, :, :shared] = chosen[..., :shared]
    return result.reshape(fresh.shape)


def _describe_classes(source_classes: Sequence[str], classes: Sequence[str], rows: Sequence[int | None]) -> list[str]:
    if list(source_classes) == list(classes):
        return []
    new = [name for name, place in zip(classes, rows, strict=True) if place is None]
    renamed = [
        f"{source_classes[place]} as {name}"
        for name, place in zip(classes, rows, strict=True)
        if place is not None and source_classes[place] != name
    ]
    text = f"{len(classes) - len(new)} of {len(classes)} classes keep their rows of the box layers"
    if renamed:
        text += f" ({_listed(renamed)})"
    return [text + (f", {_listed(new)} start from random numbers" if new else "")]


def _describe_context(source_config: Config, config: Config) -> list[str]:
    if source_config.roi.context == config.roi.context:
        return []
    if config.roi.context:
        return ["the columns of the global context start at zero, so the first forward pass is as before"]
    return ["the columns of the global context are left out"]


def _describe_unused(found: int, wanted: int) -> list[str]:
    if found == wanted:
        return []
    what = f"{abs(found - wanted)} outputs that are never predicted (roi.unused_outputs)"
    return [f"{what} are left out" if found > wanted else f"{what} start from random numbers"]


def _listed(names: Sequence[str], max_names: int = 6) -> str:
    return ", ".join(names[:max_names]) + (f", ... ({len(names) - max_names} more)" if len(names) > max_names else "")


def _describe_anchors(config: Config) -> str:
    offset = f", offset {config.rpn.anchor_offset}" if config.rpn.anchor_offset else ""
    return f"sizes {list(config.rpn.anchor_sizes)}, ratios {list(config.rpn.anchor_ratios)}{offset}"
