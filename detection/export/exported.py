"""An exported detector that predicts as `Detector` does: `load_exported("detector.onnx").predict(["a.jpg"])`.

The graph gives boxes in the network's pixels; resizing, tiles, batches and the pasting of masks are done here, by the functions
that PyTorch's detector uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from backbones.errors import printable, shorten
from detection.config import Config, parse_config
from detection.config.thresholds import thresholds_of_classes
from detection.engine.precision import resolve_precision
from detection.errors import CheckpointError, ConfigError
from detection.export.runtimes import OnnxFile, Runtime, RuntimeName, make_runtime, read_onnx
from detection.inference.detector import predict_each_by
from detection.inference.images import ImageInputs, batch_of_size, network_sizes
from detection.inference.pasting import paste_masks
from detection.inference.predictor import ReportError
from detection.inference.results import ImageDetections
from detection.inference.select import to_image_pixels
from detection.structures import Batch, Detections

if TYPE_CHECKING:
    from detection.data.catalog import Dataset
    from detection.inference.evaluate import EvaluationResult

_SETTINGS = ("shorter_side", "longer_side", "score_threshold", "nms_threshold", "max_detections", "refinement_passes")
"""Of `test`, in the file's metadata."""
FREE_KEYS = ("test.score_threshold", "test.batch_size", "test.tile", "test.tile_overlap", "test.tile_whole", "train.precision")
"""What may be chosen when a graph runs: the rest is fixed in it."""


class ExportedDetector:
    """A detector in an exported graph, run by another program on the CPU.

    `config` has what the file says of it, and defaults for the rest. Raises ConfigError where one of its thresholds is lower
    than the class's of `lowest` (K,), with which the graph was exported.
    """

    def __init__(self, run: Runtime, config: Config, lowest: Tensor, shortest_side: int) -> None:
        self.config = config
        self._run, self._shortest_side = run, shortest_side
        self._threshold = class_thresholds(config)
        for name, given, least in zip(self.class_names, self._threshold.tolist(), lowest.tolist(), strict=True):
            if given < least:
                raise ConfigError(
                    f"test.score_threshold={given:g} of {printable(name)} is below {least:g}, with which the graph was "
                    f"exported: raise it, or export with a lower one"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names in the order of the labels."""
        return self.config.data.class_names

    @property
    def predicts_masks(self) -> bool:
        """Whether there is a mask for each object."""
        return self.config.model.mask

    @property
    def device(self) -> torch.device:
        """Where it computes: on the CPU."""
        return torch.device("cpu")

    def predict(self, images: ImageInputs) -> list[ImageDetections]:
        """Objects in each image, as `Detector.predict`."""
        return list(self.predict_each(images))

    def predict_each(self, images: ImageInputs, on_error: ReportError | None = None) -> Iterator[ImageDetections]:
        """Objects in each image, image by image, as `Detector.predict_each`."""
        return predict_each_by(self._detect, [self.config], images, on_error)

    def evaluate(self, dataset: Dataset | None = None) -> EvaluationResult:
        """Every metric on a data set, as `Detector.evaluate`."""
        from detection.inference.evaluate import evaluate

        return evaluate(self, dataset)

    def _detect(self, arrays: Sequence[np.ndarray]) -> list[Detections]:
        test, resizing = self.config.test, self.config.data.resizing
        size_hw = network_sizes(arrays[0].shape[:2], test, resizing)[test.shorter_side]
        outputs = self._run(*graph_inputs(batch_of_size(arrays, size_hw, resizing), self._shortest_side))
        boxes, scores, labels, image_index, *masks = map(torch.from_numpy, outputs)
        kept = scores > self._threshold[labels]
        found = []
        for index, array in enumerate(arrays):
            rows = (kept & (image_index == index)).nonzero().squeeze(1)
            image_hw = (array.shape[0], array.shape[1])
            each = to_image_pixels(Detections(boxes[rows], scores[rows], labels[rows]), size_hw, image_hw)
            if masks:
                each = replace(each, masks=paste_masks(masks[0][rows], each.boxes, image_hw, self.config.mask.pasting))
            found.append(each)
        return found


def load_exported(
    path: str | Path, config: Callable[[Config], Config] | None = None, *, runtime: RuntimeName = "onnx"
) -> ExportedDetector:
    """The detector of a file that `export_detector` or `export_int8` wrote, run by onnxruntime or OpenVINO.

    `config` gets what the file says and returns what to use: thresholds above the graph's, test.batch_size, tiles, and
    train.precision, by which OpenVINO computes; other settings are fixed in the graph. Raises CheckpointError where the file is
    no such one, ConfigError where a setting cannot be chosen or a package is not installed.
    """
    file = read_onnx(path)
    own = config_of_graph(file)
    used = own if config is None else config(own)
    require_fixed_settings(own, used, path)
    run = make_runtime(runtime, file.contents, resolve_precision(used.train.precision, "cpu"))
    return ExportedDetector(run, used, class_thresholds(own), int(file.value("shortest_side")))


def class_thresholds(config: Config) -> Tensor:
    """The score threshold of each class, (K,) float32. Raises ConfigError where the config names what is no class."""
    thresholds = thresholds_of_classes(config.test.score_threshold, config.data.class_names)
    return torch.tensor(thresholds, dtype=torch.float32, device="cpu")


def config_of_graph(file: OnnxFile) -> Config:
    """What the file says of its detector, as a config. Raises CheckpointError where it does not say all."""
    masks = "masks" in file.output_names
    values: dict[str, Any] = {
        "model": {"backbone": file.metadata.get("backbone", ""), "mask": masks},
        "data": {"classes": file.value("class_names"), "resizing": file.metadata.get("resizing")},
        "test": {name: file.value(name) for name in _SETTINGS} | _refinement(file),
        "train": {"precision": "fp32"},
        **({"mask": {"pasting": file.metadata.get("pasting")}} if masks else {}),
    }
    try:
        return parse_config(Config, values, str(file.path))
    except ConfigError as error:
        raise CheckpointError(f"{printable(str(file.path))} describes itself wrongly: {error}") from None


def _refinement(file: OnnxFile) -> dict[str, Any]:
    """How the passes of refinement are joined; older files do not say it, and their graphs do what the defaults say."""
    if "refinement" not in file.metadata:
        return {}
    return {"refinement": file.metadata["refinement"], "refine_scores": file.value("refine_scores")}


def require_fixed_settings(own: Config, used: Config, path: str | Path) -> None:
    """Raise ConfigError where a setting differs from the graph's that cannot be chosen any more."""
    theirs, asked = graph_settings(own), graph_settings(used)
    for key, value in asked.items():
        if value != theirs[key] and key not in FREE_KEYS:
            raise ConfigError(
                f"{key}={shorten(value)} cannot be chosen for {printable(str(path))}, whose graph has {shorten(theirs[key])}: "
                f"export it again"
            )


def graph_settings(config: Config) -> dict[str, object]:
    """The settings that a graph may depend on, by their keys: where images lie and where results go does not count."""
    sections = {name: getattr(config, name) for name in ("model", "fpn", "rpn", "roi", "mask", "train", "test")}
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section}
    return values | {"data.classes": config.data.class_names, "data.resizing": config.data.resizing}


def graph_inputs(batch: Batch, shortest_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of a graph, images uint8 (N, 3, H, W) and sizes (N, 2), for a batch of images of one size.

    Sides below the shortest that the graph takes are filled up at the right and bottom, which the sizes tell.
    """
    images = batch.images if batch.images.dtype == torch.uint8 else batch.images.round().to(torch.uint8)
    missing = [max(0, shortest_side - side) for side in images.shape[2:]]
    filled = F.pad(images, (0, missing[1], 0, missing[0])) if any(missing) else images
    return filled.contiguous().numpy(), np.array(batch.sizes_hw, dtype=np.int64)
