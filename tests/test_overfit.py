"""The whole system learns by heart: eight real images, from random weights, to AP50 >= 0.95."""

from dataclasses import replace

import pytest
import torch

from backbones import build_backbone, recompute_bn_statistics
from detection.config import Config
from detection.data import load_dataset, train_loader
from detection.data.images import read_image
from detection.engine.train import train
from detection.evaluation import evaluate_coco
from detection.inference.dataset import predict_dataset
from detection.inference.detector import build_detector
from detection.resize import resize_image

STEPS = 260


@pytest.mark.slow
def test_eight_images_of_coco(real_data, tmp_path):
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
        }
    )  # fmt: skip
    dataset = load_dataset(config.data.train, config.data.classes)
    # Objects that span at least two cells of the stride-16 features once the image is resized.
    suitable = [r for r in dataset.records if 1 <= len(r.boxes) <= 6 and r.trainable.all() and r.areas.min() > 64**2]
    eight = replace(dataset, records=suitable[:8])
    assert len(eight.records) == 8
    model = build_detector(config)
    normalised_start(model, eight.records)
    train(
        model,
        lambda first: train_loader(eight, config, first_batch=first),
        config.train,
        tmp_path,
        metadata={"kind": "detector", "class_names": [], "preprocessing": {}, "config": {}},
    )
    figures = evaluate_coco(eight.records, predict_dataset(model, eight.records, workers=0), dataset.class_names)
    assert figures["AP50"] >= 0.95


def normalised_start(model, records):
    """Random weights whose frozen norms hold the statistics of the images: without them a deep net starts to explode."""
    backbone = build_backbone("resnet18")
    images = torch.stack([torch.from_numpy(resize_image(read_image(r.file), (224, 320))).permute(2, 0, 1) for r in records])
    recompute_bn_statistics(backbone, [backbone.preprocessing.normalize(images)])
    model.load_backbone(backbone.state_dict(), backbone.preprocessing)
