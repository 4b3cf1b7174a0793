"""A data set of grey pictures with one bright disc or square each, and the config of a run on it that takes seconds;
masks of ellipses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

NUM_IMAGES = 6

CONFIG = """
model: {{backbone: resnet18, freeze_stages: 2}}
rpn: {{channels: 16, anchor_sizes: [16, 32], sample_size: 16, post_nms_train: 20, post_nms_test: 10, min_size: 4}}
roi: {{sample_size: 8, pool_size: 4}}
data:
  classes: [disc, square]
  train: [{{format: voc, root: {root}, split: train}}]
  val: [{{format: voc, root: {root}, split: val}}]
  shorter_sides: [48]
  longer_side: 80
  workers: {workers}
test: {{shorter_side: 48, longer_side: 80}}
train: {{batch_size: 1, steps: 6, learning_rate: 0.01, log_every: 1, checkpoint_every: 2, precision: fp32}}
output_dir: {output}
"""

ANNOTATION = """<annotation><filename>{stem}.png</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>
</bndbox></object></annotation>"""


def ellipses(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(G, H, W) bool: in each box (G, 4) the ellipse that touches its sides."""
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size_hw), indexing="ij")
    centers, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    places = (torch.stack([x, y]) - centers[:, :, None, None]) / half[:, :, None, None]
    return places.square().sum(dim=1) <= 1


def write_shapes(root: Path) -> None:
    """A VOC devkit of NUM_IMAGES pictures: four to train on, two to validate with."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    stems = [f"{index:06d}" for index in range(NUM_IMAGES)]
    for index, stem in enumerate(stems):
        image = np.full((48, 64, 3), 90, np.uint8)
        x, y, r = 20 + 4 * index, 24, 10
        if index % 2:
            cv2.circle(image, (x, y), r, (255, 255, 255), -1)
        else:
            cv2.rectangle(image, (x - r, y - r), (x + r, y + r), (255, 255, 255), -1)
        cv2.imwrite(str(root / "JPEGImages" / f"{stem}.png"), image)
        name = "disc" if index % 2 else "square"
        box = {"x1": x - r + 1, "y1": y - r + 1, "x2": x + r + 1, "y2": y + r + 1}
        (root / "Annotations" / f"{stem}.xml").write_text(ANNOTATION.format(stem=stem, name=name, **box))
    (root / "ImageSets/Main/train.txt").write_text("\n".join(stems[:4]) + "\n")
    (root / "ImageSets/Main/val.txt").write_text("\n".join(stems[4:]) + "\n")


def write_config(folder: Path, devkit: Path, workers: int = 0) -> Path:
    """The config of a run of six steps on the shapes, in `folder`/run."""
    path = folder / "experiment.yaml"
    path.write_text(CONFIG.format(root=devkit, output=folder / "run", workers=workers))
    return path
