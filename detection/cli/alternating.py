"""4-step alternating training (Faster R-CNN, section 3.2), as the paper's detectors were trained.

1. The RPN, from the classifier. 2. Fast R-CNN, from the classifier too, on step 1's proposals: two separate networks.
3. The RPN's own layers on the trunk of step 2, which stays as it is. 4. Fast R-CNN's own layers on the same trunk and step 3's
proposals: one network. Proposals are made anew for each batch; stored ones would not fit the augmented images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.cli.runs import print_once
from detection.cli.train import Splits, initialise, train_model
from detection.config import Config
from detection.engine.distributed import World
from detection.engine.train import TrainResult
from detection.inference.detector import Detector, load_detector
from detection.modeling import FasterRCNN
from detection.structures import Batch

FOLDERS = ("step1_rpn", "step2_fast_rcnn", "step3_rpn", ".")
"""Where each step's run lies in the output folder: the last is the run that people know."""


class RpnStep(Detector):
    """Trains the RPN alone."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The RPN's two losses."""
        return self.rpn.losses(self.rpn(self.extract(batch)), batch.sizes_hw, batch.targets)


class FastRcnnStep(Detector):
    """Trains Fast R-CNN alone, on the proposals of its own RPN or of another network."""

    def __init__(self, config: Config, class_names: Sequence[str], proposer: FasterRCNN | None = None) -> None:
        super().__init__(config, class_names)
        self._proposer = (proposer,)  # in a tuple: its weights are not this model's

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The RoI head's two losses."""
        features = self.extract(batch)
        (proposer,) = self._proposer
        with torch.no_grad():
            maker = proposer or self
            output = maker.rpn(features if proposer is None else proposer.extract(batch))
            proposals = maker.rpn.training_proposals(output, batch.sizes_hw)
        return self.roi_head.losses(features, proposals, batch.sizes_hw, batch.targets)


def train_alternating(config: Config, splits: Splits, *, resume: bool = False) -> TrainResult:
    """Train in four steps, each a run of its own that can be interrupted and resumed. Returns the last step's result.

    Steps 1 to 3 lie in folders of `output_dir`, step 4 in `output_dir` itself. Raises the errors of `detection.errors`.
    """
    folders = [config.output_dir / folder for folder in FOLDERS]
    for number, folder in enumerate(folders, start=1):
        print_once(f"step {number} of 4: {_DESCRIPTIONS[number - 1]}")
        # A later step's run does not exist yet if an earlier one was interrupted.
        goes_on = resume and (number == 1 or (folder / "last.pt").exists())
        torch.manual_seed(config.train.seed)
        model = _model(config, number, folders)
        if not goes_on:
            _start(model, config, number, folders)
        _fix_parts(model, number)
        # Only the whole network can be evaluated.
        result = train_model(model, splits if number == 4 else replace(splits, validation=None), folder, resume=goes_on)
        if result.interrupted:
            break
    return result


_DESCRIPTIONS = (
    "the RPN",
    "Fast R-CNN on the proposals of step 1",
    "the RPN's own layers on the trunk of step 2",
    "Fast R-CNN's own layers on the proposals of step 3",
)


def _model(config: Config, number: int, folders: Sequence[Path]) -> Detector:
    """A step's network with fresh weights."""
    names = config.data.class_names
    if number in (1, 3):
        return RpnStep(config, names)
    if number == 4:
        return FastRcnnStep(config, names)
    proposer = load_detector(folders[0] / "last.pt", device=World.from_environment().device)
    return FastRcnnStep(config, names, proposer.requires_grad_(False))


def _start(model: Detector, config: Config, number: int, folders: Sequence[Path]) -> None:
    """Steps 1 and 2 begin with the classifier, steps 3 and 4 with what came before."""
    weights = config.model.weights if number <= 2 else folders[number - 2] / "last.pt"
    if weights is not None:
        initialise(model, weights)


def _fix_parts(model: Detector, number: int) -> None:
    """Whatever a step does not train stays exactly as it is, BN statistics too."""
    fixed: dict[int, list[nn.Module]] = {
        1: [model.roi_head],
        2: [model.rpn],
        3: [model.roi_head, model.trunk],
        4: [model.rpn, model.trunk],
    }
    for part in fixed[number]:
        part.requires_grad_(False)
    if number >= 3:
        model.trunk.freeze([name for name, _ in model.trunk.named_children()])
