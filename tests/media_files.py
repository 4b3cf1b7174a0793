"""Pictures and videos for tests."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from detection.data.video_writer import FrameWriter

SHADES = (10, 120, 230)
"""Of the frames of `write_frames`."""


def write_picture(path: Path, value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 60, 3), value, np.uint8))
    return path


def write_frames(path: Path, durations: tuple[int, ...] = (100, 50, 300)) -> Path:
    """An animation of three grey frames, milliseconds long, or a TIFF of three pages."""
    frames = [Image.new("RGB", (64, 48), (shade, shade, shade)) for shade in SHADES]
    options: dict[str, Any] = {} if path.suffix == ".tif" else {"duration": list(durations)}
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def write_video(path: Path, num_frames: int = 6) -> Path:
    writer = FrameWriter(path, (48, 64), 10.0)
    for index in range(num_frames):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8), index / 10)
    writer.close()
    return path
