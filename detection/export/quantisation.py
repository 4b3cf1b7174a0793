"""An exported detector in int8: its convolutions and fully connected layers, by onnxruntime's static quantisation.

Weights get a scale for each output channel; the ranges of what flows between layers are measured on images. What stays in
float32: the last layer of each head, whose outputs are scores and boxes, the boxes' arithmetic, NMS and RoI pooling. The graph
says where with ONNX's QuantizeLinear and DequantizeLinear, which onnxruntime and OpenVINO both turn into their int8 kernels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from backbones.errors import printable
from detection.errors import CheckpointError, ConfigError, DatasetError
from detection.export.exported import config_of_graph, graph_inputs
from detection.export.exporter import ONNX, export_detector
from detection.export.runtimes import OnnxFile, onnx_runtime, read_onnx, require_package
from detection.files import write_whole
from detection.inference.detector import Detector
from detection.inference.images import ImageInputs, batch_of_size, each_image, network_sizes

LAYERS = ("Conv", "Gemm", "MatMul")
"""What is computed in int8. Of a detector's graph these are layers of the network, and nothing else."""
PREDICTORS = ("rpn.objectness", "rpn.deltas", "roi_head.class_scores", "roi_head.box_deltas", "mask_head.predictor")
"""Layers that stay in float32: rounded to a step in 256, their outputs would move boxes by pixels."""
NUM_IMAGES = 100
"""To measure the ranges on, at most."""

Feed = dict[str, np.ndarray]


def export_int8(detector: Detector, path: str | Path, images: ImageInputs, num_images: int = NUM_IMAGES) -> str:
    """Write a detector to an .onnx file as `export_detector` does, then in int8 as `quantise_detector` does.

    Returns a sentence that tells the sizes. Raises what these raise.
    """
    if Path(path).suffix != ONNX:
        raise ConfigError(f"{path}: only {ONNX} files are written in int8")
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "detector.onnx"
        sentence = export_detector(detector, exported)
        return f"{sentence}; {quantise_detector(exported, path, images, num_images)}"


def quantise_detector(exported: str | Path, path: str | Path, images: ImageInputs, num_images: int = NUM_IMAGES) -> str:
    """Write an exported detector again with its layers in int8, and return a sentence that tells how many and the sizes.

    `images` as `predict` takes them, such as a folder: some of those to detect in, of which the first `num_images` are used.
    Raises DatasetError where one cannot be read or there is none, CheckpointError where the graph is no detector that
    `export_detector` wrote, or cannot be quantised, run or written; ConfigError where a package is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        require_package(package, "export")
    import onnx

    file = read_onnx(exported)
    if "arithmetic" in file.metadata:
        raise CheckpointError(f"{printable(str(exported))} is in {printable(file.metadata['arithmetic'])} already")
    feeds = graph_feeds(file, images, num_images)
    first = next(feeds, None)
    if first is None:
        raise DatasetError("to measure the ranges of an int8 graph, give at least one image")
    model = onnx.load_from_string(file.contents)
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    kept = [node.name for node in layers if _is_predictor(node)]
    reader = FeedReader(chain([first], feeds))
    quantised = _quantised(model, kept, reader)
    onnx.helper.set_model_props(quantised, {**file.metadata, "arithmetic": "int8"})
    contents: bytes = quantised.SerializeToString()
    onnx_runtime(contents)(*first.values())  # what cannot run is not written
    try:
        write_whole(Path(path), contents)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; free some space or write elsewhere") from None
    before, after = (len(each) / 2**20 for each in (file.contents, contents))
    return (
        f"{len(layers) - len(kept)} of {len(layers)} layers are in int8, their ranges measured on {reader.count} images; "
        f"{before:.1f} MB have become {after:.1f}"
    )


def graph_feeds(file: OnnxFile, images: ImageInputs, num_images: int) -> Iterator[Feed]:
    """A graph's inputs for each of the first images, by their names, as `ExportedDetector` gives them."""
    config, shortest_side = config_of_graph(file), int(file.value("shortest_side"))
    test, resizing = config.test, config.data.resizing
    for image in islice(each_image(images, config.data.max_pixels), num_images):
        size_hw = network_sizes(image.pixels.shape[:2], test, resizing)[test.shorter_side]
        pixels, sizes_hw = graph_inputs(batch_of_size([image.pixels], size_hw, resizing), shortest_side)
        yield {"images": pixels, "sizes_hw": sizes_hw}


class FeedReader:
    """What onnxruntime reads the inputs from, and how many it has read."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self.feeds, self.count = feeds, 0

    def get_next(self) -> Feed | None:
        """The next image's inputs, None after the last."""
        feed = next(self.feeds, None)
        self.count += feed is not None
        return feed


def _is_predictor(node: Any) -> bool:
    """Whether the layer's weight is that of one of PREDICTORS."""
    return any(part in name for name in node.input for part in PREDICTORS)


def _quantised(model: Any, kept: list[str], reader: FeedReader) -> Any:
    """The model with its layers in int8, but for those `kept`. Raises CheckpointError where that cannot be done."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    # Its preprocessing folds norms into convolutions, which the export has done already; without the mark it warns.
    add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory() as folder:
        exported, written = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, exported)
        try:
            quantize_static(
                exported,
                written,
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                nodes_to_exclude=kept,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise CheckpointError(f"the graph cannot be quantised: {reason}") from error
        return onnx.load(written)
