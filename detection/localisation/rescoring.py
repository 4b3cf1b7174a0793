"""The R-CNN's word on proposals (appendix C): new scores and positions, by one network or several as one.

C classes of one image, P proposals of a class, R RoIs of all classes. Boxes: xyxy pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from backbones.modes import evaluating, own_defaults
from detection.config.localiser import LocTestConfig
from detection.localisation.merging import ClassBoxes
from detection.localisation.networks import LocRcnn
from detection.localisation.testing import enough_memory, mean_of, require_same_classes_of
from detection.localisation.warping import mean_colour, warp_region
from detection.modeling.boxes import clip_boxes


def rescore(
    models: Sequence[LocRcnn], image: Tensor, proposals: Sequence[Tensor], classes: Tensor, test: LocTestConfig
) -> ClassBoxes:
    """New scores and boxes of the proposals C x (P, 4) of the classes (C,) in an image (3, H, W) uint8 RGB on the CPU.

    Each proposal is scored and moved for its own class only; each network warps it as it was in its training (`rcnn.padding`
    and `data.image_size` of its config), `test.batch_size` RoIs at a time. Of several networks the scores and boxes are
    averaged. Boxes are clipped to the image; the result is on the first network's device.

    Raises CheckpointError where the networks' classes differ or the outputs of one are not finite, ConfigError where the memory
    does not suffice.
    """
    require_same_classes_of(models)
    counts, size_hw = [len(boxes) for boxes in proposals], (image.shape[1], image.shape[2])
    if sum(counts) == 0:
        scores, boxes = (torch.zeros(shape, dtype=torch.float32) for shape in ((len(counts), 0), (len(counts), 0, 4)))
        return ClassBoxes(scores.to(models[0].device), boxes.to(models[0].device), size_hw)
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    rois = torch.cat(list(proposals)).split(test.batch_size)
    labels = classes.repeat_interleave(torch.tensor(counts, device=classes.device)).split(test.batch_size)
    with own_defaults(), torch.inference_mode(), evaluating(models), enough_memory(test):
        parts = [_mean_prediction(models, pixels, *each) for each in zip(rois, labels, strict=True)]
        scores, boxes = (torch.cat(list(each)).split(counts) for each in zip(*parts, strict=True))
        padded = [pad_sequence(list(each), batch_first=True) for each in (scores, boxes)]
        return ClassBoxes(padded[0], clip_boxes(padded[1], size_hw), size_hw)


def _mean_prediction(models: Sequence[LocRcnn], pixels: np.ndarray, rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean scores (R,) and boxes (R, 4) of the RoIs (R, 4), each for its own class (R,), in an image (H, W, 3)."""
    found = [
        model.predict(warp_rois(pixels, rois, model).to(model.device), rois.to(model.device), labels.to(model.device))
        for model in models
    ]
    return mean_of([scores for scores, _ in found]), mean_of([boxes for _, boxes in found])


def warp_rois(pixels: np.ndarray, rois: Tensor, model: LocRcnn) -> Tensor:
    """The regions (R, 4) of an image (H, W, 3) uint8, as the network was trained to see them: (R, 3, S, S) uint8."""
    size, padding = model.config.data.image_size, model.config.rcnn.padding
    fill = mean_colour(model.preprocessing)
    regions = [torch.from_numpy(warp_region(pixels, box, size, padding, fill)) for box in rois.tolist()]
    return torch.stack(regions).permute(0, 3, 1, 2)
