"""All that is found out about a config's data before training: faults, numbers, images that show the same, anchors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from detection.config import Config, SplitName
from detection.data.anchor_advice import AnchorAdvice, suggest_anchors
from detection.data.catalog import Dataset
from detection.data.check import CheckedSplit, SplitStatistics, check_data, data_warnings, split_statistics
from detection.data.duplicate_images import DuplicateImages, describe_duplicate_images, find_duplicate_images
from detection.data.tiles import tile_dataset


@dataclass(frozen=True)
class Findings:
    """What was found."""

    splits: Sequence[CheckedSplit]
    statistics: Mapping[SplitName, SplitStatistics]  # of `splits`, in their order
    warnings: Sequence[str]  # what training accepts but people should know, but for duplicate images
    duplicate_images: Sequence[DuplicateImages]
    anchors: AnchorAdvice

    @property
    def duplicate_image_lines(self) -> list[str]:
        """What `duplicate_images` mean, a line for each split and two splits."""
        return describe_duplicate_images(self.duplicate_images)

    @property
    def num_refused(self) -> int:
        """Faults for which training would refuse the data."""
        return sum(len(split.faults.errors) for split in self.splits)


def examine_data(config: Config, report: Callable[[SplitName, int, int], None] | None = None) -> Findings:
    """Read all data of a settled config, which names some; faults are among what is found, not raised.

    `report` is called with the split, the number of images decoded, and how many there are.
    """
    names = config.data.class_names
    # Faults of masks are worth knowing whatever is trained; only where strictness would refuse them they must be needed, too.
    splits = check_data(config.data, report, masks=config.model.mask or not config.data.strict)
    return Findings(
        splits,
        {split.name: split_statistics(split, names) for split in splits},
        data_warnings(splits, names, config.test.max_detections),
        find_duplicate_images(splits),
        advise_anchors(splits, config),
    )


def advise_anchors(splits: Sequence[CheckedSplit], config: Config) -> AnchorAdvice:
    """How the config's anchors fit the training images, or those that there are, as they are cut into tiles."""
    tiles = tile_dataset(Dataset(config.data.class_names, splits[0].records), config.data)
    return suggest_anchors(tiles.records, config)
