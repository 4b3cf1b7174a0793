"""A training step that does not fit into the memory: what it worked on, and what to lower."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from detection.engine.run import TrainBatch, TrainingRun
from detection.engine.state import LAST
from detection.errors import TrainingError
from detection.out_of_memory import out_of_memory_as

SIZE_KEYS = {
    "detector": ("data.shorter_sides with data.longer_side", "roi.sample_size"),
    "classifier": ("data.image_size", "the depth of model.backbone"),
    "loc_rpn": ("data.image_size", "the number of rpn.anchor_sizes"),
    "loc_rcnn": ("data.image_size", "the depth of model.backbone"),
}
"""What the memory of a step depends on besides the number of images, by the kind of the model."""


def training_memory(run: TrainingRun, batch: TrainBatch | None = None) -> AbstractContextManager[None]:
    """A context for a part of a training step: memory that runs out is a TrainingError. `batch` is what it works on."""
    return out_of_memory_as(lambda: TrainingError(describe_lack(run, batch)))


def describe_lack(run: TrainingRun, batch: TrainBatch | None) -> str:
    """One line: the step, the batch's size, three keys to lower, and what is left of the run."""
    sizes, last = SIZE_KEYS[run.metadata.kind]
    number, section = run.config.micro_batch, run.config.key
    keys = (
        f"{section}.images_per_device (now {number}; raise {section}.accumulate by as much), {sizes}, or {last}"
        if number > 1
        else f"{sizes}, {last}, or take a smaller model.backbone ({section}.images_per_device is 1 already)"
    )
    return (
        f"step {run.state.step + 1}: the memory ({run.world.device}) does not suffice{_describe_batch(batch)}. Lower {keys}. "
        f"{run.output_dir / LAST} is as it was saved last; a run with other settings can start from it (--weights)"
    )


def _describe_batch(batch: TrainBatch | None) -> str:
    images = getattr(batch, "images", None)
    if batch is None or not isinstance(images, torch.Tensor):
        return ""
    height, width = images.shape[-2:]
    return f" for {len(batch)} images of {width}x{height} pixels"
