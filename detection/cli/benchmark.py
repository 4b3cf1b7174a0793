"""Speed and memory against the usual implementations, on the same work, in one run.

Each contestant runs in a process of its own; they take turns. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.benchmarks.contest import Build, Result

Contest = tuple[str, "dict[str, Build]"]
"""What is done, and the contestants by name; ours is called `ours`."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: detector")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="timed turns of each contestant; default: 3")
    parser.add_argument("--threads", type=int, metavar="N", help="default: torch's own choice")
    parser.add_argument("--size", default="600x800", metavar="HxW", help="image of the detector; default: 600x800")
    parser.add_argument("--rois", type=int, default=512, metavar="N", help="RoIs an image in training; default: 512")
    parser.add_argument("--proposals", type=int, default=300, metavar="N", help="RoIs an image in inference; default: 300")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images a step of the detector; default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, as docs/results/*.json hold them")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON that is asked for."""
    options = build_parser().parse_args(argv)
    parts = options.parts or ["detector"]
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"unknown part '{part}' of the benchmark: choose of {', '.join(PARTS)}")
    for name in ("rounds", "rois", "proposals", "batch"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(options, name)}")
    from detection.benchmarks.contest import contest, tell
    from detection.evaluation.detection_files import write_json

    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            for title, builds in PARTS[part](options, Path(folder)):
                tell(f"{part}: {title}")
                threads = 1 if part == "loader" else options.threads
                results = contest(builds, rounds=options.rounds, threads=threads, device=options.device, report=tell)
                measured.append(describe(part, title, results))
    Console(highlight=False).print(results_table(measured))
    if options.json:
        command = shlex.join(["tools/benchmark.py", *(sys.argv[1:] if argv is None else argv)])
        write_json(options.json, heading(options.device) | {"contests": measured, "commands": [command]})
    return 0


def describe(part: str, title: str, results: Mapping[str, Result]) -> dict[str, Any]:
    """One contest as plain data."""
    from detection.benchmarks.contest import ratios

    return {
        "part": part,
        "title": title,
        "results": {name: result.to_dict() for name, result in results.items()},
        "ratios": ratios(results),
    }


def heading(device: str) -> dict[str, Any]:
    """All of the JSON file but the figures."""
    import torch

    from detection.cli.provenance import provenance

    return {
        "kind": "benchmark",
        "title": "Speed and memory on the same work, in turns",
        **provenance(torch.device(device), None),
    }


def results_table(measured: Sequence[Mapping[str, Any]]) -> Table:
    """The contests for people: seconds and memory of each side, and how many times as fast we are."""
    table = Table(title="Median seconds of a turn; a comparison tells how many times as fast ours is, and its share of memory")
    for column in ("", "seconds", "peak MB", "GFLOP/s", "compared"):
        table.add_column(column, justify="left" if column in ("", "compared") else "right")
    for contest in measured:
        table.add_row(f"[bold]{contest['title']}")
        for name, result in contest["results"].items():
            compared = contest["ratios"].get(name, {})
            table.add_row(
                f"  {name}",
                f"{result['median_seconds']:.4f}",
                str(result["peak_mb"]),
                str(result.get("gflop_per_second", "")),
                "\n".join(f"{ratio['speed']:.2f}x {other}, memory {ratio['memory']:.2f}x" for other, ratio in compared.items()),
            )
    return table


def detector_contests(options: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """Training and inference in fp32 and bf16, all four sides in one contest, and the machine's matrix product beside them."""
    import torch

    from detection.benchmarks.detector import DTYPES, Task, ours, torchvision_peer
    from detection.benchmarks.operators import matrix_product

    size_hw = image_size(options.size)
    for job in ("train", "infer"):
        builds: dict[str, Build] = {}
        for precision in DTYPES:
            task = Task(job, precision, size_hw, options.rois, options.proposals, options.batch, options.device)
            builds[f"torchvision {precision}"] = partial(torchvision_peer, task)
            builds[f"ours {precision}"] = partial(ours, task)
        for dtype in (torch.float32, torch.bfloat16):
            builds[f"matrix product {str(dtype).removeprefix('torch.')}"] = partial(matrix_product, dtype, options.device)
        yield f"{job}, ResNet-50 C4, {options.batch} image(s) of {options.size}", builds


def image_size(text: str) -> tuple[int, int]:
    """`600x800` -> (600, 800). Raises ConfigError."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 64 and int(width) >= 64):
        raise ConfigError(f"--size must be HEIGHTxWIDTH in pixels, at least 64 each, got '{text}'")
    return int(height), int(width)


def roi_align_contests(options: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """RoIAlign alone; torchvision's operator knows no bf16 on a CPU, so its fp32 is what ours is compared with."""
    import torch

    from detection.benchmarks.operators import pooling

    for direction in ("forward", "backward"):
        builds: dict[str, Build] = {"torchvision fp32": partial(pooling, "torchvision", direction, torch.float32, options.rois)}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            builds[f"ours {name}"] = partial(pooling, "ours", direction, dtype, options.rois)
        yield f"RoIAlign {direction}, {options.rois} RoIs of 14x14x1024", builds


def classifier_contests(options: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """A training step of the classification stage."""
    from detection.benchmarks.classifier import SETTINGS, ours, plain_loop

    for network, (batch, side, _) in SETTINGS.items():
        title = f"training step, {network}, {batch} images of {side}x{side}"
        yield (
            title,
            {"plain loop": partial(plain_loop, network, options.device), "ours": partial(ours, network, options.device)},
        )


def loader_contests(options: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """The loader has no peer: its figure is images a second."""
    from detection.benchmarks.data import NUM_FILES, loading, write_photographs

    write_photographs(folder / "photographs")
    yield f"loading {NUM_FILES} JPEGs at 600 px with flips, one thread", {"ours": partial(loading, str(folder / "photographs"))}


def evaluation_contests(options: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """COCO's evaluation at the size of its validation split."""
    from detection.benchmarks.data import EVALUATION_COUNTS, evaluating

    title = ", ".join(f"{count} {name}" for name, count in EVALUATION_COUNTS.items())
    yield f"evaluation of {title}", {"pycocotools": partial(evaluating, "pycocotools"), "ours": partial(evaluating, "ours")}


PARTS: dict[str, Callable[[argparse.Namespace, Path], Iterator[Contest]]] = {
    "detector": detector_contests,
    "roi-align": roi_align_contests,
    "classifier": classifier_contests,
    "loader": loader_contests,
    "evaluation": evaluation_contests,
}
