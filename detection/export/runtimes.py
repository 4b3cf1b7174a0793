"""Programs that run exported graphs on a CPU: onnxruntime and OpenVINO, and what an ONNX file says of its graph.

A `Runtime` is a function. One that is made for a graph takes its inputs and gives its outputs, both as arrays in their order.
"""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from backbones.errors import printable
from detection.errors import CheckpointError, ConfigError
from detection.files import read_regular

RuntimeName = Literal["onnx", "openvino"]

Runtime = Callable[..., list[np.ndarray]]
"""The inputs of a graph, one array each -> its outputs."""

_MAX_GRAPH_BYTES = 2**31
"""What protobuf can hold."""
_PACKAGES: dict[str, tuple[str, str]] = {"onnx": ("onnxruntime", "export"), "openvino": ("openvino", "openvino")}
"""Of each runtime the package, and the extra of this one that installs it."""


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that `resdet export` wrote."""

    path: Path
    contents: bytes
    metadata: Mapping[str, str]  # strings, or else JSON
    output_names: tuple[str, ...]

    def value(self, key: str) -> Any:
        """An entry of the metadata that is JSON. Raises CheckpointError where it is absent or none."""
        try:
            return json.loads(self.metadata[key])
        except (KeyError, ValueError):
            raise CheckpointError(
                f"{printable(str(self.path))} does not say its {key}: export it again with this version of resdet"
            ) from None


def read_onnx(path: str | Path) -> OnnxFile:
    """The exported detector in a file. Raises CheckpointError for what is none, ConfigError without the package onnx."""
    require_package("onnx", "export")
    import onnx
    from google.protobuf.message import DecodeError

    name = printable(str(path))
    try:
        contents = read_regular(Path(path), _MAX_GRAPH_BYTES)
        model = onnx.load_from_string(contents)
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror or error}") from None
    except (DecodeError, ValueError):
        raise CheckpointError(f"{name} is no ONNX file, or is cut short: give what `resdet export` wrote") from None
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if metadata.get("format") != "resdet":
        raise CheckpointError(f"{name} is not a graph that `resdet export` wrote: its inputs and classes are not known")
    if metadata.get("kind") != "detector":
        raise CheckpointError(f"{name} holds a {printable(metadata.get('kind', 'graph'))}, not a detector")
    return OnnxFile(Path(path), contents, metadata, tuple(entry.name for entry in model.graph.output))


def make_runtime(name: RuntimeName, contents: bytes, precision: torch.dtype | None = None) -> Runtime:
    """What runs the graph in the bytes of an ONNX file, with as many threads as torch uses.

    OpenVINO computes in bfloat16 where that is the `precision`, else in float32, as onnxruntime always does. Raises ConfigError
    where the package is not installed or cannot compute so, CheckpointError where it cannot run the graph.
    """
    require_package(*_PACKAGES[name])
    if name == "openvino":
        return openvino_runtime(contents, precision)
    if precision is not None:
        raise ConfigError("onnxruntime computes in fp32, or in int8 what was exported so: leave out train.precision")
    return onnx_runtime(contents)


def require_package(package: str, extra: str) -> None:
    """Raise ConfigError, saying how it is installed, where a package is absent."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"to run exported graphs, {package} must be installed: pip install 'resdet[{extra}]'")


def onnx_runtime(contents: bytes) -> Runtime:
    """onnxruntime, in float32 but for what is in int8 in the graph."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    errors = (faults.Fail, faults.InvalidGraph, faults.InvalidArgument, faults.NotImplemented, faults.RuntimeException)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    what = f"onnxruntime {onnxruntime.__version__}"
    with _one_line(what, errors):
        session = onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with _one_line(what, errors):
            found: list[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
            return found

    return run


def openvino_runtime(contents: bytes, precision: torch.dtype | None = None) -> Runtime:
    """OpenVINO on the CPU. Of a graph in int8, `precision` is that of the rest."""
    import openvino

    what = f"OpenVINO {openvino.__version__.partition('-')[0]}"
    settings = {
        # Said in any case: its own choice is bfloat16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision is torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    with _one_line(what, (RuntimeError,)):
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(contents, b""), "CPU", settings)

    own = threading.local()  # a request is one thread's, and keeps its memory from call to call

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with _one_line(what, (RuntimeError,)):
            if not hasattr(own, "request"):
                own.request = compiled.create_infer_request()
            found = own.request.infer(list(inputs))
            return [np.array(found[place]) for place in range(len(compiled.outputs))]

    return run


@contextmanager
def _one_line(what: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # OpenVINO begins with the places of its source, and ends with the reason.
        reason = lines[-1 if "Exception from" in lines[0] else 0] if lines else type(error).__name__
        raise CheckpointError(f"{what} cannot run the model: {reason}") from error
