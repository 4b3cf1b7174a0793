"""The whole system learns by heart: eight real images, from random weights, to AP50 >= 0.95."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backbones import build_backbone, recompute_bn_statistics, save_checkpoint
from detection import Config, evaluate, load_detector, train_detector
from detection.config import with_weights
from detection.data import load_dataset, read_image
from detection.resize import resize_image
from detection.structures import Record

STEPS = 260


@pytest.mark.slow
def test_eight_images_of_coco(real_data: Path, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "model": {"backbone": "resnet18", "freeze_stages": 0},
            "rpn": {
                "channels": 128, "anchor_sizes": [32, 64, 128, 224], "sample_size": 64, "ignore_straddling": False,
                "min_size": 4, "pre_nms_train": 600, "post_nms_train": 100, "post_nms_test": 100,
            },
            "roi": {
                "pooling": "align", "pool_size": 4, "sampling_ratio": 2, "sample_size": 32, "positive_fraction": 0.5,
                "negative_iou": [0, 0.5],
            },
            "data": {
                "classes": "coco", "shorter_sides": [224], "longer_side": 320, "augmentations": [], "workers": 0,
                "train": [
                    {
                        "format": "coco", "root": real_data / "coco_mini", "images": "val2017",
                        "annotations": "annotations/instances_val2017.json",
                    }
                ],
            },
            "train": {
                "batch_size": 4, "images_per_device": 4, "steps": STEPS, "learning_rate": 0.01, "schedule": "cosine",
                "warmup_steps": 20, "clip_norm": 10, "weight_decay": 0, "log_every": 50,
            },
            # The paper's NMS at 0.3 would drop one of two objects of a class that overlap.
            "test": {"shorter_side": 224, "longer_side": 320, "nms_threshold": 0.6},
            "output_dir": tmp_path / "run",
        }
    )  # fmt: skip
    dataset = load_dataset(config.data.train, config.data.classes)
    # Objects that span at least two cells of the stride-16 features once the image is resized.
    suitable = [r for r in dataset.records if 1 <= len(r.boxes) <= 6 and r.trainable.all() and r.areas.min() > 64**2]
    eight = replace(dataset, records=suitable[:8])
    assert len(eight.records) == 8
    save_checkpoint(normalised_start(eight.records), tmp_path / "start.pt")
    result = train_detector(with_weights(config, tmp_path / "start.pt"), training=eight, validation=eight)
    assert result.steps == STEPS and result.metrics["AP50"] >= 0.95
    found = evaluate(load_detector(tmp_path / "run" / "best.pt"), eight)
    assert found.metrics == pytest.approx(result.metrics, abs=1e-3)


def normalised_start(records: Sequence[Record]) -> dict[str, torch.Tensor]:
    """Random weights whose frozen norms hold the statistics of the images: without them a deep net starts to explode."""
    backbone = build_backbone("resnet18")
    images = torch.stack([torch.from_numpy(resize_image(read_image(r.file), (224, 320))).permute(2, 0, 1) for r in records])
    recompute_bn_statistics(backbone, [backbone.preprocessing.normalize(images)])
    return backbone.state_dict()
