"""The boxes that the RPN predicts for the class of each training image, made once and kept for the R-CNN (appendix C).

N images, P boxes of one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from detection.config import LocConfig
from detection.engine.distributed import World, on_main
from detection.errors import DatasetError
from detection.localisation.evaluate import find_boxes_at
from detection.localisation.images import LocImages
from detection.localisation.merging import ClassBoxes, top_proposals
from detection.localisation.networks import LocRpn
from detection.localisation.proposal_store import ProposalSource, begin_store, digest_of_images, shard_images, write_shard
from detection.localisation.test_loading import loc_test_loader
from detection.modeling.boxes import scale_boxes

logger = logging.getLogger(__name__)

# Keys of the config that change the proposals of given weights.
_SETTINGS = (
    "data.image_size",
    "rcnn.num_proposals",
    "rcnn.nms_threshold",
    "test.views",
    "test.scales",
    "test.longer_side",
    "test.flip",
)

ImageProposals = tuple[Tensor, Tensor]
"""Boxes (P, 4) and scores (P,) of an image, the best first; float32 on the CPU."""


def write_proposals(
    models: Sequence[LocRpn],
    images: LocImages,
    config: LocConfig,
    folder: Path,
    *,
    world: World | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], object] = logger.info,
) -> bool:
    """Fill a folder with the best `rcnn.num_proposals` boxes of each image's class, in the views of `config.test`.

    What is there already stays; each process makes its share of the rest. Returns False where `should_stop`, asked after each
    image, ended it before its last one. An image that cannot be read is an error, or with `data.on_bad_image: skip` has no
    proposals, which a warning says.

    Raises DatasetError where the folder holds proposals of other weights, images or settings, OSError where it cannot be
    written; and what `find_boxes` raises.
    """
    world = world or World.from_environment()
    source = proposal_source(models, images, config)
    own = on_main(world, lambda: begin_store(folder, source))[world.rank :: world.size]
    indices = [index for number in own for index in shard_images(number, len(images))]
    with closing(propose(models, images.subset(indices), config)) as stream:
        for done, number in enumerate(own, start=1):
            rows = list(shard_images(number, len(images)))
            made = _take(stream, len(rows), should_stop)
            if made is None:
                return False
            write_shard(folder, number, source, made, images.sizes_hw[rows])
            tell(f"proposals: part {done} of {len(own)} is written ({len(rows)} images)")
    return True


def _take(stream: Iterator[ImageProposals], number: int, should_stop: Callable[[], bool]) -> list[ImageProposals] | None:
    """The next ones of the stream, or None if it is to stop before they are whole."""
    made: list[ImageProposals] = []
    while not should_stop():
        if len(made) == number:
            return made
        made += islice(stream, 1)
    return None


def propose(models: Sequence[LocRpn], images: LocImages, config: LocConfig) -> Generator[ImageProposals, None, None]:
    """The proposals of each image for its own class, in order. Raises DatasetError for an image that cannot be read."""
    labels = torch.from_numpy(images.labels)[:, None]
    with closing(loc_test_loader(images, config)) as loader:
        while part := list(islice(loader, config.test.batch_size)):
            good = [(index, image) for index, image in part if isinstance(image, Tensor)]
            rows = [index for index, _ in good]
            found = iter(find_boxes_at(models, [image for _, image in good], labels[rows], config) if good else ())
            for index, image in part:
                if isinstance(image, Tensor):
                    yield _best_of(next(found), config, images.size_hw(index))
                else:
                    yield _nothing(image, config)


def _best_of(found: ClassBoxes, config: LocConfig, annotated_hw: tuple[int, int]) -> ImageProposals:
    boxes, scores = top_proposals(found, config.rcnn)
    # The file may be larger or smaller than its annotation says.
    return scale_boxes(boxes[0].float().cpu(), found.size_hw, annotated_hw), scores[0].float().cpu()


def _nothing(error: DatasetError, config: LocConfig) -> ImageProposals:
    if config.data.on_bad_image == "error":
        raise error
    logger.warning("%s; it has no proposals", error)
    return torch.zeros((0, 4), dtype=torch.float32, device="cpu"), torch.zeros(0, dtype=torch.float32, device="cpu")


def proposal_source(models: Sequence[LocRpn], images: LocImages, config: LocConfig) -> ProposalSource:
    """What makes the proposals what they are."""
    values = config.model_dump(mode="json")
    settings = {key: values[key.partition(".")[0]][key.partition(".")[2]] for key in _SETTINGS}
    return ProposalSource(digest_of_weights(models), digest_of_images(images), len(images), settings)


def digest_of_weights(models: Sequence[LocRpn]) -> str:
    """A hash of all parameters and buffers of some networks, also those that no file holds: the anchors; and of what they
    expect of an image."""
    found = hashlib.sha256()
    for model in models:
        found.update(repr(model.preprocessing).encode())
        for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
