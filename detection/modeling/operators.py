"""torchvision's compiled operators without torchvision.

Importing torchvision takes longer than many a prediction, because it also imports torch's compiler and all its models. On a
CPU a detector needs nothing of it but two operators, so only the compiled library that holds them is loaded.
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor


def native_roi_align(maps: Tensor, rows: Tensor, boxes: Tensor, size: int, aligned: bool) -> Tensor:
    """RoIAlign by the operator, with one sample per pixel covered: maps (G, C, H, W) and boxes (F, 4) in their pixels, each in
    the map that `rows` (F,) names -> (F, C, size, size). All are float32."""
    rois = torch.cat([rows[:, None].to(boxes), boxes], dim=1)
    cells: Tensor = torch.ops.torchvision.roi_align(maps, rois, 1.0, size, size, 0, aligned)
    return cells


def load_operators() -> None:
    """Make torchvision's operators known to torch. Where its library is not found as expected, torchvision is imported."""
    if "torchvision" not in sys.modules and (spec := importlib.util.find_spec("torchvision")):
        for folder in spec.submodule_search_locations or ():
            for library in sorted(Path(folder).glob("_C*")):
                if library.suffix in (".so", ".pyd", ".dylib"):
                    with suppress(OSError):
                        torch.ops.load_library(library)
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401  it has the library elsewhere, or says what is wrong


load_operators()
