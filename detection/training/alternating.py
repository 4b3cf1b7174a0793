"""4-step alternating training (Faster R-CNN, section 3.2), as the paper's detectors were trained.

1. The RPN, from the classifier. 2. Fast R-CNN, from the classifier too, on step 1's proposals: two separate networks. 3. The
RPN's own layers on the trunk of step 2, which stays as it is. 4. Fast R-CNN's own layers on the same trunk and step 3's
proposals: one network. A pyramid is part of the trunk. Proposals are made anew for each batch; stored ones would not fit the
augmented images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from backbones import Preprocessing, load_state
from detection.config import Config, with_weights
from detection.data.settle import Tell
from detection.engine.advice import advise_frozen
from detection.engine.distributed import World, on_main
from detection.engine.result import TrainResult
from detection.engine.saved_state import parse_training
from detection.engine.state import LAST, require_no_other_run
from detection.inference.detector import Detector, build_detector
from detection.modeling import FasterRCNN
from detection.structures import Batch
from detection.training.fit import RunOptions, fit, load_settled_data
from detection.weights.checkpoint import Checkpoint, checkpoint_config, initialise_detector, read_checkpoint

FOLDERS = ("step1_rpn", "step2_fast_rcnn", "step3_rpn", ".")
"""Where each step's run lies in the output folder: the last step's is the folder itself, as a joint run's."""

DESCRIPTIONS = (
    "the RPN",
    "Fast R-CNN on the proposals of step 1",
    "the RPN's own layers on the trunk of step 2",
    "Fast R-CNN's own layers on the proposals of step 3",
)

Propose = Callable[[Batch], list[Tensor]]
"""Images -> the proposals of each that the RoI head samples from: N x (P, 4), xyxy pixels of the batch."""


class RpnStep(Detector):
    """Trains the RPN alone."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The RPN's two losses."""
        return self.rpn.losses(self.rpn(self.extract(batch)), batch.sizes_hw, batch.targets)


class FastRcnnStep(Detector):
    """Trains Fast R-CNN alone, on the proposals of its own RPN, or on those that `propose` makes."""

    def __init__(self, config: Config, propose: Propose | None = None) -> None:
        super().__init__(config)
        self.propose_for_training = propose

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The RoI head's two losses."""
        features = self.extract(batch)
        if self.propose_for_training is None:
            proposals = _training_proposals(self, features, batch)
        else:
            proposals = self.propose_for_training(batch)
        losses = self.roi_head.losses(features, proposals, batch.sizes_hw, batch.targets)
        # No RoI may be of the size of one of a pyramid's maps. Its layers get a gradient of zero, for which processes wait.
        return losses | {"loss_box": losses["loss_box"] + sum(each[:0].sum() for each in features)}


def proposals_of(network: FasterRCNN) -> Propose:
    """The function that makes another network's proposals.

    A function, since a module as an attribute of a module would be its part: trained, and saved in its checkpoints.
    """

    @torch.no_grad()
    def propose(batch: Batch) -> list[Tensor]:
        return _training_proposals(network, network.extract(batch), batch)

    return propose


@torch.no_grad()
def _training_proposals(network: FasterRCNN, features: Sequence[Tensor], batch: Batch) -> list[Tensor]:
    return network.rpn.training_proposals(network.rpn(features), batch.sizes_hw)


@dataclass(frozen=True)
class StartingPoint:
    """Where in the four steps to begin."""

    step: int = 1  # 1..4; of a resumed run the last one that was begun
    weights: Path | None = None  # what step 1 started from, if that is known
    seconds: float = 0.0  # of the steps before


def run_folders(config: Config) -> list[Path]:
    """Where the runs of a training lie: a joint one's, or those of the four steps, the last of which is `output_dir` too."""
    return [config.output_dir / folder for folder in FOLDERS] if config.approach == "alternating" else [config.output_dir]


def require_no_other_training(config: Config) -> None:
    """Raise TrainingError where a new training would overwrite a run."""
    for folder in run_folders(config):
        require_no_other_run(folder)


def train_alternating(config: Config, world: World, options: RunOptions) -> TrainResult:
    """Train in four steps, each a run of its own. Returns the last one's result, with the seconds of all.

    Steps 1 to 3 lie in folders of `output_dir`, step 4 in `output_dir` itself, which is held. Resuming goes on with the last
    step that was begun; those before it stay as they are, for others were built on them. A step that a signal or a callback
    stops is the last one.
    """
    folders, resume, tell = run_folders(config), options.resume, options.tell
    start = on_main(world, lambda: _start(config, resume))
    # `--weights` is not repeated when a run is resumed; step 2 still has to start from the classifier.
    config = with_weights(config, config.model.weights or start.weights)
    # Before the data: a wrong name shows at once, not after the annotations are read.
    weights = _find_first_weights(config, start, options)
    config, data = load_settled_data(config, world, options, folders)
    for sentence in advise_frozen(config.model) if not resume else []:
        tell(sentence)
    seconds = start.seconds
    for number in range(start.step, len(folders) + 1):
        tell(f"step {number} of {len(folders)}: {DESCRIPTIONS[number - 1]}")
        resumed = resume and number == start.step
        model = _build_step(number, config, folders, world)
        if not resumed:
            _load_first_weights(model, number, folders, world, weights, tell)
        freeze_fixed_parts(model, number)
        # Only the whole network can be evaluated.
        step_data = data if number == len(folders) else replace(data, validation=None)
        result = fit(model, step_data, folders[number - 1], world=world, resume=resumed, callbacks=options.callbacks)
        seconds += result.seconds
        if result.interrupted or result.stopped_by:
            break
        if result.asked_to_stop and number < len(folders):  # at the step's end: those after it would never have been asked
            result = replace(result, stopped_by=result.asked_to_stop)
            break
    return replace(result, seconds=seconds)


def _start(config: Config, resume: bool) -> StartingPoint:
    """Where to begin. Resuming: at the last step that was begun, or else at step 1, whose run then raises the error."""
    if not resume:
        require_no_other_training(config)
        return StartingPoint()
    folders = run_folders(config)
    begun = {number: folder / LAST for number, folder in enumerate(folders, start=1) if (folder / LAST).exists()}
    last = max(begun, default=1)
    if last > 1:
        earlier = [path for number, path in begun.items() if number < last]
        return StartingPoint(last, seconds=sum(parse_training(_read_step(path), path).progress.seconds for path in earlier))
    weights = checkpoint_config(_read_step(begun[1]), begun[1]).model.weights if begun else None
    return StartingPoint(weights=weights)


def _find_first_weights(config: Config, start: StartingPoint, options: RunOptions) -> Path | None:
    """The file that steps 1 and 2 start from; None where there is none, or where both have begun."""
    both_begun = start.step > 2 or (start.step == 2 and options.resume)
    if config.model.weights is None or both_begun:
        return None
    return options.find_weights(config.model.weights)


def _build_step(number: int, config: Config, folders: Sequence[Path], world: World) -> Detector:
    """A step's network with fresh weights: a function of `train.seed`."""
    torch.manual_seed(config.train.seed)
    if number in (1, 3):
        return RpnStep(config)
    if number == 4:
        return FastRcnnStep(config)
    proposer = build_detector(config)
    _load_step(proposer, folders[0] / LAST, world)
    return FastRcnnStep(config, proposals_of(proposer.requires_grad_(False).to(world.device).eval()))


def _load_first_weights(
    model: Detector, number: int, folders: Sequence[Path], world: World, weights: Path | None, tell: Tell
) -> None:
    """Steps 1 and 2 begin with the classifier, steps 3 and 4 with the network of the step before."""
    if number > 2:
        _load_step(model, folders[number - 2] / LAST, world)
    elif weights is not None:
        tell(initialise_detector(model, weights))


def _load_step(model: Detector, path: Path, world: World) -> None:
    """Take over an earlier step's network. Rank 0 reads it: the output folder is on its machine alone."""
    state, preprocessing = on_main(world, lambda: _read_network(path))
    load_state(model, state, str(path))
    model.preprocessing = preprocessing


def _read_network(path: Path) -> tuple[Mapping[str, Tensor], Preprocessing]:
    checkpoint = _read_step(path)
    return checkpoint.state, checkpoint.metadata.preprocessing


def _read_step(path: Path) -> Checkpoint:
    return read_checkpoint(path, "detector")


def freeze_fixed_parts(model: Detector, number: int) -> None:
    """Freeze what step `number` (1..4) does not train: it stays exactly as it is, BN statistics too."""
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
