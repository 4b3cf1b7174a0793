"""Pictures and videos for tests."""

from pathlib import Path

import cv2
import numpy as np

from detection.data.video_writer import FrameWriter


def write_picture(path: Path, value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((40, 60, 3), value, np.uint8))
    return path


def write_video(path: Path, num_frames: int = 6) -> Path:
    writer = FrameWriter(path, (48, 64), 10.0)
    for index in range(num_frames):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8), index / 10)
    writer.close()
    return path
