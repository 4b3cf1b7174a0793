"""4-step alternating training (Faster R-CNN, section 3.2), as the paper's detectors were trained.

1. The RPN, from the classifier. 2. Fast R-CNN, from the classifier too, on step 1's proposals: two separate networks.
3. The RPN's own layers on the trunk of step 2, which stays as it is. 4. Fast R-CNN's own layers on the same trunk and step 3's
proposals: one network. Proposals are made anew for each batch; stored ones would not fit the augmented images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones import Preprocessing, load_checkpoint, load_state
from detection.cli.commands.train import Splits, initialise, train_model
from detection.cli.runs import print_once
from detection.config import Config
from detection.engine.distributed import World, on_main, process_group
from detection.engine.state import LAST, claim_output_dir
from detection.engine.train import TrainResult
from detection.inference.detector import Detector, build_detector
from detection.modeling import FasterRCNN
from detection.structures import Batch
from detection.weights.checkpoint import require_kind

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


@dataclass(frozen=True)
class Place:
    """Where a run of four steps stands."""

    step: int = 1  # the last one that was begun, 1..4
    weights: Path | None = None  # what step 1 started from, if that is known
    seconds: float = 0.0  # of the steps before


def train_alternating(config: Config, splits: Splits, *, resume: bool = False) -> TrainResult:
    """Train in four steps, each a run of its own. Returns the last one's result, with the seconds of all.

    Steps 1 to 3 lie in folders of `output_dir`, step 4 in `output_dir` itself. Resuming goes on with the last step that was
    begun; those before it stay as they are, for others were built on them. Raises the errors of `detection.errors`.
    """
    folders = [config.output_dir / folder for folder in FOLDERS]
    world = World.from_environment()
    with process_group(world):
        place = on_main(world, lambda: _find_place(folders) if resume else _claim(folders))
        # `--weights` is not repeated when a run is resumed; step 2 still has to start from the classifier.
        config = _with_weights(config, config.model.weights or place.weights)
        seconds = place.seconds
        for number in range(place.step, len(folders) + 1):
            result = _train_step(number, config, splits, folders, world, resume=resume and number == place.step)
            seconds += result.seconds
            if result.interrupted:
                break
    return replace(result, seconds=seconds)


def _claim(folders: Sequence[Path]) -> Place:
    """The start of a new run. Raises TrainingError where one of its steps would overwrite another run."""
    for folder in folders:
        claim_output_dir(folder)
    return Place()


def _find_place(folders: Sequence[Path]) -> Place:
    """Where to go on. If nothing was begun that is step 1, whose run then says so."""
    begun = {number: folder / LAST for number, folder in enumerate(folders, start=1) if (folder / LAST).exists()}
    last = max(begun, default=1)
    if last > 1:
        earlier = [_read_step(path) for number, path in begun.items() if number < last]
        return Place(last, seconds=sum(checkpoint["progress"]["seconds"] for checkpoint in earlier))
    weights = _read_step(begun[1])["config"]["model"]["weights"] if begun else None
    return Place(weights=None if weights is None else Path(weights))


def _with_weights(config: Config, weights: Path | None) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": weights})})


_DESCRIPTIONS = (
    "the RPN",
    "Fast R-CNN on the proposals of step 1",
    "the RPN's own layers on the trunk of step 2",
    "Fast R-CNN's own layers on the proposals of step 3",
)


def _train_step(
    number: int, config: Config, splits: Splits, folders: Sequence[Path], world: World, *, resume: bool
) -> TrainResult:
    print_once(f"step {number} of {len(folders)}: {_DESCRIPTIONS[number - 1]}")
    torch.manual_seed(config.train.seed)
    model = _model(config, number, folders, world)
    if not resume:
        _start(model, number, folders, world)
    _fix_parts(model, number)
    # Only the whole network can be evaluated.
    seen = splits if number == len(folders) else replace(splits, validation=None)
    return train_model(model, seen, folders[number - 1], resume=resume)


def _model(config: Config, number: int, folders: Sequence[Path], world: World) -> Detector:
    """A step's network with fresh weights."""
    names = config.data.class_names
    if number in (1, 3):
        return RpnStep(config, names)
    if number == 4:
        return FastRcnnStep(config, names)
    proposer = build_detector(config)
    _load_step(proposer, folders[0] / LAST, world)
    return FastRcnnStep(config, names, proposer.requires_grad_(False).to(world.device).eval())


def _start(model: Detector, number: int, folders: Sequence[Path], world: World) -> None:
    """Steps 1 and 2 begin with the classifier, steps 3 and 4 with what came before."""
    if number > 2:
        _load_step(model, folders[number - 2] / LAST, world)
    elif model.config.model.weights is not None:
        initialise(model, model.config.model.weights)


def _load_step(model: Detector, path: Path, world: World) -> None:
    """Take over an earlier step's network. Rank 0 reads it: the output folder is on its machine alone."""
    state, preprocessing = on_main(world, lambda: itemgetter("model", "preprocessing")(_read_step(path)))
    load_state(model, state, str(path))
    model.preprocessing = Preprocessing.from_dict(preprocessing)


def _read_step(path: Path) -> dict[str, Any]:
    checkpoint = load_checkpoint(path)
    require_kind(checkpoint, "detector", path)
    return checkpoint


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
