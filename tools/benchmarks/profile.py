"""Where the time of a training step and of an inference goes, without a change to the code of the model.

The named steps of one model are wrapped; spans may lie within one another, and each second belongs to the innermost. The
backward pass is told apart by the gradients: a step's own backward begins when the gradient of its output is ready and ends
when that of its input is.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.base import C4Head, Trunk
from backbones.fpn import FpnTrunk
from detection.inference.detector import Detector
from detection.inference.images import batch_of_size
from detection.inference.select import select_detections
from detection.modeling.rpn import RpnOutput
from detection.structures import Detections
from tools.benchmarks.benchmark import Benchmark, Work
from tools.benchmarks.detector import (
    MODES,
    DetectorCase,
    case_of,
    describe,
    images_and_boxes,
    our_detector,
    our_training,
    suitable_precision,
)
from tools.benchmarks.parts import Options

Features = Tensor | Sequence[Tensor] | Mapping[str, Tensor] | RpnOutput

REST = "rest"
BACKWARD = "backward"


def benchmarks(options: Options, folder: Path) -> Iterator[Benchmark]:
    """Ours alone, in the precision that suits the hardware unless told otherwise."""
    precision = options.precision or suitable_precision(options.device)
    for batch in options.batches:
        for mode in MODES:
            case = case_of(options, mode, precision, batch)
            implementations = {f"ours {precision}": partial(profiled_work, case)}
            yield Benchmark(describe(case), implementations, images=batch, count_flops=False, repeats=options.repeats)


def profiled_work(case: DetectorCase) -> Work:
    """Work that returns the median seconds of each step, the first time left out, and where the host waits for a GPU."""
    model, watch = our_detector(case), Stopwatch(torch.device(case.device))
    time_steps(model, watch)
    training = case.mode == "train"
    work = our_training(model, model, case, watch.span) if training else timed_inference(model, case, watch)
    waits = {}
    if case.device != "cpu":
        work()  # the first time prepares what the others find
        waits = {"synchronisations": synchronisations(work)}
    history: list[dict[str, float]] = []

    def timed() -> dict[str, Any]:
        watch.restart()
        with watch.span(REST):
            work()
        history.append(watch.seconds())
        later = history[1:] or history
        names = {name for seconds in later for name in seconds}
        medians = Counter({name: statistics.median(found.get(name, 0.0) for found in later) for name in names})
        return {"spans": dict(medians.most_common())} | waits

    return timed


class Stopwatch:
    """Seconds of spans that lie within one another. On a GPU they are the device's own, and nothing waits for it meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._open: list[str] = []
        self._laps: list[tuple[str, Any]] = []  # whose time ends, and when

    def restart(self) -> None:
        """Forget all spans."""
        self._open.clear()
        self._laps.clear()

    def begin(self, name: str) -> None:
        """The time from now on belongs to `name`, until it ends or a span within it begins."""
        self._laps.append((self._open[-1] if self._open else REST, self.now()))
        self._open.append(name)

    def end(self, name: str) -> None:
        """The span, and what is still open in it, ends here; nothing if it is not open."""
        if name not in self._open:
            return
        self._laps.append((self._open[-1], self.now()))
        while self._open.pop() != name:
            pass

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A context that begins and ends a span."""
        self.begin(name)
        yield
        self.end(name)

    def seconds(self) -> dict[str, float]:
        """The sum of each name's laps. On a GPU, waits for it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        totals: defaultdict[str, float] = defaultdict(float)
        for (_, start), (name, end) in zip(self._laps, self._laps[1:], strict=False):
            totals[name] += start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
        return dict(totals)

    def now(self) -> Any:
        """The clock in seconds; on a GPU an event that the device passes."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))  # not the first GPU's
        return event


def time_steps(model: Detector, watch: Stopwatch) -> None:
    """Make this one model's named steps take the watch's time, and the backward passes of those that have one."""
    head = "conv5" if isinstance(model.roi_head.conv5, C4Head) else "two-layer head"
    forward_only: list[tuple[nn.Module, str, str]] = [
        (model, "extract", "normalisation"),  # the trunk within it is a span of its own
        (model.rpn, "forward", "RPN"),  # in training without a gradient: its loss computes the sampled anchors again
        (model.rpn, "proposals", "proposals"),
        (model.rpn, "suppress", "NMS of proposals"),
        (model.rpn, "losses", "RPN losses"),
        (model.roi_head, "sample_rois", "sampling of RoIs"),
        (model.roi_head, "begin", head),  # in training within `vectors`, whose backward pass has it too
    ]
    with_backward: list[tuple[nn.Module, str, str]] = [
        *trunk_steps(model.trunk),
        (model.rpn, "at_anchors", "RPN"),
        (model.roi_head, "vectors", head),
        (model.roi_head, "pool", "RoI pooling"),
    ]
    if model.roi_head.mask_head is not None:
        with_backward.append((model.roi_head.mask_head, "forward", "mask head"))
    # Attributes of the module itself come before its class's methods: no other model is touched.
    for module, method, name in forward_only:
        setattr(module, method, _in_span(getattr(module, method), name, watch))
    for module, method, name in with_backward:
        setattr(module, method, _in_two_spans(getattr(module, method), name, watch))


def trunk_steps(trunk: Trunk) -> list[tuple[nn.Module, str, str]]:
    """What has a span in the full-image part: all of it at once, or the network and the pyramid on it."""
    if isinstance(trunk, FpnTrunk):
        return [(trunk.backbone, "forward", "trunk"), (trunk.neck, "forward", "pyramid")]
    return [(trunk, "feature_maps", "trunk")]


def timed_inference(model: Detector, case: DetectorCase, watch: Stopwatch) -> Callable[[], list[Detections]]:
    """What `model.predict` does with the images of a case, its steps in spans."""
    arrays = [image.permute(1, 2, 0).numpy() for image in images_and_boxes(case)[0]]
    model.eval()

    @torch.inference_mode()
    def infer() -> list[Detections]:
        with case.autocast():
            with watch.span("resizing"):
                batch = batch_of_size(arrays, case.size_hw, model.config.data.resizing)
            with watch.span("transfer"):
                batch = batch.to(model.device)
            features = model.extract(batch)
            proposals = model.propose(features, batch.sizes_hw)
            begun = model.roi_head.begin(features)
            regions = model.classify(features, proposals, batch.sizes_hw, begun)
            masks = _in_span(model.segment, "rest of masks", watch)
            segment = partial(masks, features, begun=begun) if model.predicts_masks else None
            with watch.span("selection, NMS per class, pasting" if segment else "selection, NMS per class"):
                return select_detections(
                    regions, case.size_hw, batch.sizes_hw, model.config.test, model.score_threshold, segment
                )

    return infer


def _in_span(function: Callable[..., Any], name: str, watch: Stopwatch) -> Callable[..., Any]:
    """The function in a span."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with watch.span(name):
            return function(*args, **kwargs)

    return call


def _in_two_spans(function: Callable[..., Any], name: str, watch: Stopwatch) -> Callable[..., Any]:
    """The function in a span, and its backward pass in another."""
    forward = _in_span(function, name, watch)
    back = f"{name}, {BACKWARD}"

    def call(features: Features, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(features, *args, **kwargs)
        result = forward(_watched(features, lambda: watch.end(back)), *args, **kwargs)
        begun: list[bool] = []  # by the first of several outputs

        def begin(_: Tensor) -> None:
            if not begun:
                begun.append(True)
                watch.begin(back)

        for output in _tensors(result):
            if output.requires_grad:
                output.register_hook(begin)
        return result

    return call


def _watched(features: Features, on_gradients: Callable[[], None]) -> Features:
    """Aliases of an image batch or of feature maps; the call is made when the gradients of all that have one have come.

    Others may use the same features: the gradient of an alias is that of one call alone.
    """
    if isinstance(features, RpnOutput):
        return features if features.maps is None else replace(features, maps=_Aliases.apply(on_gradients, *features.maps))
    maps = (
        [features] if isinstance(features, Tensor) else list(features.values() if isinstance(features, Mapping) else features)
    )
    aliases: tuple[Tensor, ...] = _Aliases.apply(on_gradients, *maps)
    if isinstance(features, Mapping):
        return dict(zip(features, aliases, strict=True))
    return aliases[0] if isinstance(features, Tensor) else aliases


class _Aliases(torch.autograd.Function):
    """The same tensors; one step of the backward pass for all, which comes when all that need the aliases are done."""

    @staticmethod
    def forward(ctx: Any, on_gradients: Callable[[], None], *features: Tensor) -> tuple[Tensor, ...]:
        ctx.on_gradients = on_gradients
        ctx.set_materialize_grads(False)  # a map that nothing is pooled from has no gradient
        return tuple(each.view_as(each) for each in features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        ctx.on_gradients()
        return (None, *gradients)


def _tensors(result: Any) -> Sequence[Tensor]:
    """The tensors of a step's output: itself, or those that it holds."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, tuple):
        return result
    fields = result if isinstance(result, Mapping) else vars(result)
    return [value for value in fields.values() if isinstance(value, Tensor)]


def synchronisations(work: Work) -> dict[str, int]:
    """Where the work on a GPU makes the host wait for it: "file.py:line" and how often, most first."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    found = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    return dict(Counter(f"{Path(warning.filename).name}:{warning.lineno}" for warning in found).most_common())
