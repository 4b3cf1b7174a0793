"""Detectors and backbones as files that other programs run: ONNX (.onnx) and programs of torch.export (.pt2).

An exported file takes any number of images of any size. Before it is written it is run on a random image, and must give what
PyTorch gives. It also holds what its user has to know: class names, sizes, preprocessing.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones import Backbone
from backbones.errors import printable
from detection.config import TestConfig
from detection.config.thresholds import thresholds_of_classes
from detection.device import find_device, to_device
from detection.errors import CheckpointError, ConfigError
from detection.export.agreement import Agreement, Outputs, both, compare_detections, compare_features, compare_masks, masks_of
from detection.export.graph import BackboneGraph, DetectorGraph
from detection.export.pool_shapes import pools_of_any_size
from detection.export.runtimes import onnx_runtime
from detection.files import write_whole
from detection.inference.detector import Detector
from detection.resize import resized_size
from detection.structures import Detections
from detection.weights.checkpoint import software_versions

ONNX, PROGRAM = ".onnx", ".pt2"
OPSET = 18
OLDEST_TORCH = "2.11"  # older versions put conditions on the sizes of the images
# Settings of `config.test` in the file's metadata: how its user has to resize images, and what is fixed in the graph.
METADATA_SETTINGS = {
    "shorter_side",
    "longer_side",
    "score_threshold",
    "nms_threshold",
    "max_detections",
    "refinement_passes",
    "refinement",
    "refine_scores",
}


@dataclass(frozen=True)
class Exportable:
    """What is exported: a graph, the names of its inputs and outputs, and how to check an exported copy of it."""

    graph: Callable[[str], nn.Module]  # from the format's suffix
    input_names: tuple[str, ...]  # images, and for a detector sizes_hw
    output_names: tuple[str, ...]
    metadata: dict[str, Any]
    shortest_side: int  # of an image, px: two cells of the coarsest map, because torch.export makes one cell a special case
    image: Tensor  # (1, 3, H, W) uint8: the input of the check
    compare: Callable[[Outputs], Agreement]  # from what a copy gives for that image

    def inputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """The graph's inputs for images (N, 3, H, W) without padding."""
        sizes_hw = torch.tensor([images.shape[2:]] * len(images), device=images.device)
        return (images, sizes_hw)[: len(self.input_names)]


def exportable_detector(detector: Detector) -> Exportable:
    """A detector's inference at one scale, by its `config.test`, ready to be exported.

    Raises ConfigError, naming the key, where the settings ask for more than a graph can do.
    """
    config = detector.config
    shortest_side = 2 * max(detector.trunk.strides)
    _refuse_unsupported(config.test, shortest_side)

    def graph(suffix: str) -> nn.Module:
        if suffix == PROGRAM:
            return DetectorGraph(detector)
        from detection.export.onnx_operators import grouped_nms

        return DetectorGraph(detector, grouped_nms)

    def compare(outputs: Outputs) -> Agreement:
        boxes, scores, labels, _, *masks = outputs
        agreement = compare_detections(Detections(boxes, scores, labels), detector.predict(list(image))[0].to("cpu"))
        if not masks or not len(boxes):
            return agreement
        return both(agreement, compare_masks(masks[0], masks_of(detector, image, boxes, labels)))

    image = _random_image(config.test.shorter_side, config.test.longer_side)
    metadata = _metadata("detector", config.model.backbone, detector.preprocessing.to_dict())
    metadata |= {"resizing": config.data.resizing, "shortest_side": shortest_side}
    metadata |= {"pasting": config.mask.pasting} if detector.predicts_masks else {}
    return Exportable(
        graph,
        ("images", "sizes_hw"),
        ("boxes", "scores", "labels", "image_index", "masks")[: 4 + detector.predicts_masks],
        metadata | {"class_names": list(detector.class_names)} | _settings(config.test, detector.class_names),
        shortest_side,
        image,
        compare,
    )


def exportable_backbone(backbone: Backbone, name: str) -> Exportable:
    """A backbone's feature maps, from uint8 images that are not normalised yet, ready to be exported."""
    image = _random_image(224, 320)
    graph = BackboneGraph(backbone)
    metadata = _metadata("backbone", name, backbone.preprocessing.to_dict())
    return Exportable(
        lambda suffix: graph,
        ("images",),
        tuple(backbone.channels),
        metadata | {"channels": backbone.channels, "strides": backbone.strides},
        2 * max(backbone.strides.values()),
        image,
        lambda outputs: compare_features(outputs, graph(image)),
    )


def export_detector(detector: Detector, path: str | Path, device: torch.device | str = "cpu") -> str:
    """Write a detector's inference at one scale, by its `config.test`, to an .onnx or .pt2 file: `export` says how.

    Returns a sentence that compares the file's results with PyTorch's. Raises what `exportable_detector` and `export` raise.
    """
    return export(exportable_detector(detector), Path(path), device)


def export_backbone(backbone: Backbone, name: str, path: str | Path, device: torch.device | str = "cpu") -> str:
    """Write a backbone's feature maps to an .onnx or .pt2 file: `export` says how. `name` is for the file's metadata.

    Returns a sentence that compares the file's results with PyTorch's. Raises what `export` raises.
    """
    return export(exportable_backbone(backbone, name), Path(path), device)


def export(exportable: Exportable, path: Path, device: torch.device | str = "cpu") -> str:
    """Write the file, in the format that its suffix names, and return a sentence that compares its results with PyTorch's.

    A .pt2 computes on `device`, which has to be there; what is compared is computed on the CPU. At any instant `path` is
    absent, the old file, or the new one, whole and checked. Raises ConfigError (suffix, device, missing packages) or
    CheckpointError (it cannot be exported or written, or computes something else).
    """
    suffix, place = check_format(path, device), find_device(device)
    with _one_line_errors(exportable), torch.no_grad():
        contents = _onnx_model(exportable) if suffix == ONNX else _saved(_traced(exportable, PROGRAM), exportable)
    runtime = "onnxruntime" if suffix == ONNX else "torch.export"
    if importlib.util.find_spec(runtime.partition(".")[0]) is None:
        sentence = "not checked: onnxruntime is not installed (pip install 'resdet[export]')"
    else:
        with torch.no_grad():
            outputs = (_run_onnx if suffix == ONNX else _run_program)(contents, exportable)
            agreement = exportable.compare(outputs)
        height, width = exportable.image.shape[2:]
        sentence = f"run by {runtime} on a random {width}x{height} image, {agreement.sentence}"
        if not agreement.close_enough:
            raise CheckpointError(f"{path} was not written: {sentence}")
    if place.type != "cpu":
        with _one_line_errors(exportable), torch.no_grad():
            program = moved(contents, place)
            program.module()(*(to_device(tensor, place) for tensor in exportable.inputs(exportable.image)))
            contents = _saved(program, exportable)
        sentence += f"; it computes on {place}"
    _write_whole(path, contents)
    return sentence


def check_format(path: Path, device: torch.device | str = "cpu") -> str:
    """The suffix, ONNX or PROGRAM. Raises ConfigError for another, and where a package is missing or too old.

    So it does for an ONNX file on another device than the CPU: what runs the file chooses the device.
    """
    if path.suffix not in (ONNX, PROGRAM):
        raise ConfigError(f"{path}: the suffix tells the format and must be {ONNX} or {PROGRAM} (torch.export)")
    if path.suffix == ONNX and str(device) != "cpu":
        raise ConfigError(
            f"{path}: what runs an {ONNX} file chooses the device: leave out --device {printable(str(device))}, or write a "
            f"{PROGRAM}, which has one"
        )
    if torch.__version__ < OLDEST_TORCH:
        installed = f"torch must be {OLDEST_TORCH} or newer, and is {torch.__version__}"
        raise ConfigError(f"to export, {installed}: pip install -U torch torchvision")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if path.suffix == ONNX and missing:
        raise ConfigError(f"to write ONNX, {' and '.join(missing)} must be installed: pip install 'resdet[export]'")
    return path.suffix


def _refuse_unsupported(test: TestConfig, shortest_side: int) -> None:
    for key, supported in (("voting", False), ("scales", ()), ("flip", False), ("tile", 0)):
        value = getattr(test, key)
        if value != supported:
            given, wanted = json.dumps(value), json.dumps(supported)
            raise ConfigError(f"test.{key}={given} cannot be exported, only one view at one scale can: set test.{key}={wanted}")
    for key in ("shorter_side", "longer_side"):
        if getattr(test, key) < shortest_side:
            raise ConfigError(f"test.{key}={getattr(test, key)} cannot be exported: it must be at least {shortest_side}")


def _metadata(kind: str, backbone: str, preprocessing: dict[str, Any]) -> dict[str, Any]:
    version = software_versions()["resdet"]
    return {"format": "resdet", "resdet_version": version, "kind": kind, "backbone": backbone, "preprocessing": preprocessing}


def _settings(test: TestConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """The settings for the metadata. A threshold for each of some classes becomes one for each class."""
    settings = test.model_dump(mode="json", include=METADATA_SETTINGS)
    if not isinstance(test.score_threshold, Mapping):
        return settings
    thresholds = thresholds_of_classes(test.score_threshold, class_names)
    return settings | {"score_threshold": dict(zip(class_names, thresholds, strict=True))}


def _random_image(shorter_side: int, longer_side: int) -> Tensor:
    """A smooth random image (1, 3, H, W) uint8, of a size that `predict` does not resize."""
    size_hw = resized_size((4, 5), shorter_side, longer_side)
    colours = torch.rand((1, 3, 6, 8), generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu") * 255
    return F.interpolate(colours, size_hw, mode="bicubic").clamp(0, 255).to(torch.uint8)


@contextmanager
def _one_line_errors(exportable: Exportable) -> Iterator[None]:
    """Turn torch's errors into a CheckpointError of one line.

    What torch cannot export is a network of the user's own or a library's version: no bug of ours that needs a traceback.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and torchvision's about each other
            yield
    except RuntimeError as error:
        raise CheckpointError(f"{exportable.metadata['backbone']} cannot be exported: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _dynamic_shapes(exportable: Exportable) -> dict[str, dict[int, Any]]:
    batch = torch.export.Dim("batch", min=1)
    height, width = (torch.export.Dim(name, min=exportable.shortest_side) for name in ("height", "width"))
    shapes = {"images": {0: batch, 2: height, 3: width}, "sizes_hw": {0: batch}}
    return {name: shapes[name] for name in exportable.input_names}


def _traced(exportable: Exportable, suffix: str) -> torch.export.ExportedProgram:
    """The graph, traced for any number of images of any size. The example has two images: torch takes 1 for a constant."""
    side = exportable.shortest_side
    images = torch.zeros((2, 3, 3 * side, 4 * side), dtype=torch.uint8, device="cpu")
    graph, shapes = exportable.graph(suffix), _dynamic_shapes(exportable)
    with pools_of_any_size():
        return torch.export.export(graph, exportable.inputs(images), dynamic_shapes=shapes, strict=False)


def _onnx_model(exportable: Exportable) -> bytes:
    """The bytes of an ONNX file. The metadata are in its `metadata_props`: strings as they are, all else as JSON."""
    from onnx.helper import set_model_props

    from detection.export.onnx_operators import translations

    program = torch.onnx.export(
        _traced(exportable, ONNX),
        (),
        input_names=exportable.input_names,
        output_names=exportable.output_names,
        dynamic_shapes=_dynamic_shapes(exportable),  # again, for the names of the dimensions
        opset_version=OPSET,
        dynamo=True,
        custom_translation_table=translations(),
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # paths of the source code on this machine
    strings = {key: value if isinstance(value, str) else json.dumps(value) for key, value in exportable.metadata.items()}
    set_model_props(model, strings)
    contents: bytes = model.SerializeToString()
    return contents


def _saved(program: torch.export.ExportedProgram, exportable: Exportable) -> bytes:
    """The bytes of a file for `torch.export.load`. The metadata are in its `metadata.json`."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(exportable.metadata)})
    return buffer.getvalue()


def moved(contents: bytes, device: torch.device) -> torch.export.ExportedProgram:
    """The program of a file on another device, with what it makes there: its anchors."""
    from torch.export.passes import move_to_device_pass  # not in the oldest torch

    return move_to_device_pass(torch.export.load(io.BytesIO(contents)), device)


def _run_onnx(contents: bytes, exportable: Exportable) -> Outputs:
    run = onnx_runtime(contents)
    return [torch.from_numpy(output) for output in run(*(tensor.numpy() for tensor in exportable.inputs(exportable.image)))]


def _run_program(contents: bytes, exportable: Exportable) -> Outputs:
    outputs: Outputs = torch.export.load(io.BytesIO(contents)).module()(*exportable.inputs(exportable.image))
    return outputs


def _write_whole(path: Path, contents: bytes) -> None:
    """Write the file at once. Raises CheckpointError if it cannot be written; an old file then stays as it is."""
    try:
        write_whole(path, contents)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; free some space or write elsewhere") from None
