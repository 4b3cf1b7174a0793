"""What conversion makes of a detector of another project, and what the readers of all formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from backbones import Preprocessing
from backbones.weights.conversion import NORM_PARTS
from backbones.weights.files import wrapper_prefixes
from backbones.weights.renaming import ConversionEntry, RenameRule, State
from detection.errors import CheckpointError

NAMED_CLASSES = {20: "voc", 80: "coco"}


@dataclass(frozen=True)
class ForeignDetector:
    """A detector's tensors under our names, and what the source says of their meaning; `config` is as in a YAML file."""

    config: dict[str, Any]
    preprocessing: Preprocessing
    state: State
    entries: list[ConversionEntry]
    anchors: Tensor | None = None  # (A, 4) around the origin, where the source has them; of several maps the finest's first

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return str(self.config["model"]["backbone"])

    @property
    def num_classes(self) -> int:
        """K, by the rows of the classifier; less than 1 where there is none."""
        unused = self.config.get("roi", {}).get("unused_outputs", 0)
        return rows_of(self.state, "roi_head.class_scores.bias") - 1 - int(unused)


def stage_rule(start: str, target: str) -> RenameRule:
    """The blocks of a stage whose parameters have torchvision's names."""
    names = rf"(\d+\.(?:conv[1-3]|downsample\.0)\.weight|\d+\.(?:bn[1-3]|downsample\.1)\.{NORM_PARTS})"
    return RenameRule(rf"{start}\.{names}", rf"{target}.\1")


def mask_section(state: State, num_classes: int, source: str) -> dict[str, Any]:
    """What the mask head of a state dict with our names says of the config's `mask`; empty where there is no mask head.

    Raises CheckpointError where it predicts one mask for all classes.
    """
    start = "roi_head.mask_head."
    if not any(key.startswith(start) for key in state):
        return {}
    if rows_of(state, f"{start}predictor.bias") == 1 < num_classes:
        raise CheckpointError(f"{source} predicts one mask for all classes (class-agnostic); here each class has its own")
    # In C4 it has none: it works on conv5's maps.
    convs = len({key.split(".")[3] for key in state if key.startswith(f"{start}convs.")})
    return {"channels": rows_of(state, f"{start}deconv.bias") or 256} | ({"convs": convs} if convs else {})


def classes_of(num_classes: int) -> str | list[str]:
    """The benchmark with as many classes; otherwise numbers, which the user's names replace."""
    return NAMED_CLASSES.get(num_classes, [f"class {number}" for number in range(max(num_classes, 1))])


def rows_of(state: Mapping[str, Tensor], key: str) -> int:
    """Rows of a tensor, which may have a wrapper's prefix; 0 where it is missing."""
    value = next((state[prefix + key] for prefix in wrapper_prefixes(state) if prefix + key in state), None)
    return 0 if value is None or value.ndim == 0 else len(value)
