"""Training that takes a second: tiny networks on tiny pictures, jointly and as a classifier."""

from __future__ import annotations

from pathlib import Path

import tests.weights.narrow  # noqa: F401 (registers the network)
from tests.pretraining.class_folders import write_data
from tests.shapes import write_shapes

TRAIN = """
model: {{backbone: narrow, freeze_stages: 0}}
rpn: {{channels: 16, anchor_sizes: [16, 32], sample_size: 16, post_nms_train: 20, post_nms_test: 10, min_size: 4}}
roi: {{sample_size: 8, pool_size: 4}}
data:
  classes: [disc, square]
  train: [{{format: voc, root: {data}, split: train}}]
  val: [{{format: voc, root: {data}, split: val}}]
  augmentations: [{{HorizontalFlip: {{p: 0.5}}}}]
  shorter_sides: [48, 40]
  longer_side: 80
  workers: 0
test: {{shorter_side: 48, longer_side: 80}}
train: {{batch_size: 1, steps: 24, learning_rate: 0.01, log_every: 1, checkpoint_every: 3, eval_every: 8, ema_decay: 0.5,
  precision: fp32}}
"""

PRETRAIN = """
model: {{backbone: narrow}}
data:
  root: {data}
  image_size: 32
  augmentations: [{{HorizontalFlip: {{}}}}]
  test_transforms: [{{Resize: {{}}}}]
  workers: 0
train: {{batch_size: 4, images_per_device: 4, steps: 40, learning_rate: 0.02, precision: fp32, log_every: 2,
  checkpoint_every: 5, eval_every: 10}}
bn_images: 8
"""

COMMANDS = ("train", "pretrain")


def write_experiments(folder: Path) -> dict[str, Path]:
    """Data and configs, by the commands that train with them."""
    write_shapes(folder / "shapes")
    write_data(folder / "classes")
    files = {command: folder / f"{command}.yaml" for command in COMMANDS}
    files["train"].write_text(TRAIN.format(data=folder / "shapes"), encoding="utf-8")
    files["pretrain"].write_text(PRETRAIN.format(data=folder / "classes"), encoding="utf-8")
    return files
