"""A data set with pictures and a detector's checkpoint, as training leaves it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from detection.config import Config, dump_config, load_config
from detection.inference.detector import build_detector
from detection.weights.checkpoint import detector_metadata
from detection.weights.checkpoint import write_checkpoint as save_weights
from tests.evaluation.scenes import make_record, write_devkit


def write_trained(folder: Path) -> Path:
    """A devkit with pictures, and the checkpoint and config of a small detector with random weights."""
    records = [make_record(f"im{i}", [(5, 5, 40, 60), (30, -4, 90, 30)], [0, 1]) for i in range(3)]
    write_devkit(folder / "data", records, ["cat", "dog"])
    (folder / "data/JPEGImages").mkdir()
    for record in records:
        picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"data/JPEGImages/{record.image_id}.jpg"), picture)
    text = f"""
        model: {{backbone: resnet18}}
        rpn: {{channels: 16, anchor_sizes: [32], post_nms_test: 20, min_size: 2}}
        roi: {{pool_size: 2}}
        data: {{classes: [cat, dog], test: [{{format: voc, root: {folder / "data"}, split: test}}], workers: 0}}
        test: {{shorter_side: 64, longer_side: 64, score_threshold: 0.01}}
        output_dir: {folder}
    """
    (folder / "config.yaml").write_text(text)
    config = write_checkpoint(folder / "best.pt", folder / "config.yaml")
    (folder / "resolved.yaml").write_text(dump_config(config))
    return folder


def write_checkpoint(file: Path, config_file: Path, overrides: Sequence[str] = (), seed: int = 0) -> Config:
    """The checkpoint of a config's detector with random weights; returns the config."""
    config = load_config(config_file, overrides)
    torch.manual_seed(seed)
    model = build_detector(config)
    save_weights(detector_metadata(model), model.state_dict(), file)
    return config
