"""Speed and memory against the usual implementations, on the same work, in one run.

Each implementation runs in a process of its own; a round times each once. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table

from detection.cli.main import run
from detection.errors import ConfigError
from tools.benchmarks.benchmark import Benchmark, Result, ratios, shares_of_peak
from tools.benchmarks.parts import ARCHITECTURES, PARTS, PROPOSALS, Options, benchmarks

if TYPE_CHECKING:
    import torch

COLUMNS = ("", "seconds", "images/s", "peak MB", "GFLOP/s", "of the peak", "of the whole", "compared")


def run_command() -> NoReturn:
    """Run with the process's arguments and exit, mistakes in one line: all that `tools/benchmark.py` does."""
    sys.exit(run(main))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description=__doc__,
        epilog="parts, each a group of benchmarks:\n" + "\n".join(_described(*part) for part in PARTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="one or several of the parts listed below; default: detector")
    parser.add_argument(
        "--architecture",
        default="c4",
        metavar="A",
        help=f"of detector and profile: {', '.join(ARCHITECTURES)}; max: as the paper pools; fpn: a pyramid; default: c4",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each implementation is timed; default: 3")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each process; default: torch's own choice")
    parser.add_argument("--size", default="600x800", metavar="HxW", help="pixels of the detector's images; default: 600x800")
    parser.add_argument("--rois", type=int, default=512, metavar="N", help="RoIs per image in training; default: 512")
    parser.add_argument(
        "--proposals", type=int, metavar="N", help="RoIs per image in inference; default: 300, with a pyramid 1000"
    )
    parser.add_argument("--batch", default="1", metavar="N,N", help="images per step of the detector, e.g. 1,8,16; default: 1")
    parser.add_argument("--precision", metavar="P", help="fp32 or bf16; default: both for detector, else the machine's own")
    parser.add_argument("--processes", type=int, metavar="N", help="processes of scaling; default: one for each core, 2 to 8")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, as docs/results/*.json hold them")
    return parser


def _described(part: str, summary: str) -> str:
    """A part in the help text."""
    return textwrap.fill(summary, 100, initial_indent=f"  {part:<12}", subsequent_indent=" " * 14)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write the JSON that is asked for."""
    arguments = build_parser().parse_args(argv)
    parts = arguments.parts or ["detector"]
    options = checked_options(arguments, parts)
    import torch

    from detection.files import write_json
    from tools.benchmarks.processes import report_progress, run_benchmark

    check_device(options.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)  # the number of the processes too
    measured = []
    for part, benchmark in benchmarks_of_parts(parts, options):
        report_progress(f"{part}: {benchmark.title}")
        results = run_benchmark(benchmark, rounds=arguments.rounds, device=options.device, report=report_progress)
        measured.append(to_dict(part, benchmark, results))
    show(measured, Console(highlight=False))
    if arguments.json:
        command = shlex.join(["python", "tools/benchmark.py", *(sys.argv[1:] if argv is None else argv)])
        write_json(arguments.json, heading(torch.device(options.device)) | {"commands": [command], "benchmarks": measured})
    return 0


def benchmarks_of_parts(parts: Sequence[str], options: Options) -> Iterator[tuple[str, Benchmark]]:
    """Part by part; the files of a part last until the next part is asked for."""
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            for benchmark in benchmarks(part, options, Path(folder)):
                yield part, benchmark


def checked_options(arguments: argparse.Namespace, parts: Sequence[str]) -> Options:
    """What the parts need of the arguments. Raises ConfigError for a value that cannot be used."""
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"unknown part '{part}' of the benchmark: choose of {', '.join(PARTS)}")
    for name, least in {"rounds": 1, "rois": 1, "proposals": 1, "threads": 1, "processes": 2}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}")
    if arguments.precision not in (None, "fp32", "bf16"):
        raise ConfigError(f"--precision must be fp32 or bf16, got '{arguments.precision}'")
    if arguments.architecture not in ARCHITECTURES:
        raise ConfigError(f"--architecture must be one of {', '.join(ARCHITECTURES)}, got '{arguments.architecture}'")
    return Options(
        arguments.device,
        image_size(arguments.size),
        arguments.rois,
        arguments.proposals or PROPOSALS[arguments.architecture],
        batch_sizes(arguments.batch),
        arguments.precision,
        arguments.architecture,
        arguments.processes,
    )


def image_size(text: str) -> tuple[int, int]:
    """`600x800` -> (600, 800). Raises ConfigError."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) >= 64 and int(width) >= 64):
        raise ConfigError(f"--size must be HEIGHTxWIDTH in pixels, at least 64 each, got '{text}'")
    return int(height), int(width)


def batch_sizes(text: str) -> tuple[int, ...]:
    """`1,8,16` -> (1, 8, 16). Raises ConfigError."""
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) >= 1 for number in numbers):
        raise ConfigError(f"--batch must be numbers of at least 1 with commas between, got '{text}'")
    return tuple(map(int, numbers))


def check_device(device: str) -> None:
    """Raise ConfigError for what this torch cannot compute on."""
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ConfigError(f"--device must be cpu or cuda, got '{device}'")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here; use --device cpu")


def to_dict(part: str, benchmark: Benchmark, results: Mapping[str, Result]) -> dict[str, Any]:
    """A benchmark and its results as plain data."""
    entries = {name: result.to_dict() for name, result in results.items()}
    for name, share in shares_of_peak(results).items():
        entries[name]["share_of_peak"] = share
    return {
        "part": part,
        "title": benchmark.title,
        **({"settings": dict(benchmark.settings)} if benchmark.settings else {}),
        "results": entries,
        "ratios": ratios(results),
        **({"figures": benchmark.summarize(results)} if benchmark.summarize else {}),
    }


def heading(device: torch.device) -> dict[str, Any]:
    """The entries of the JSON file before the figures: its kind and title, where and when it was measured."""
    from detection.analysis.provenance import current_provenance
    from detection.weights.checkpoint import software_versions

    # The precision stands in the name of each implementation.
    provenance = current_provenance(device, None)
    versions = software_versions()
    return {
        "kind": "benchmark",
        "title": "Speed and memory on the same work, in one run",
        "hardware": provenance.machine,
        "date": provenance.date,
        "commit": provenance.commit,
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "python")),
    }


def show(measured: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the benchmarks: what each implementation needs, and how many times as fast ours is."""
    console.print("Median seconds. Compared: how many times as fast ours is, and its share of the other's memory.")
    for benchmark in measured:
        console.print(f"\n[bold]{benchmark['part']}:[/] {benchmark['title']}", soft_wrap=True)
        console.print(results_table(benchmark))
        for name, value in benchmark.get("figures", {}).items():
            console.print(f"{name}: {value}", soft_wrap=True)


def results_table(benchmark: Mapping[str, Any]) -> Table:
    """A row per implementation, and under it those of its profile; columns that are empty in all rows are left out."""
    results, compared = benchmark["results"], benchmark["ratios"]
    rows = [row for name, result in results.items() for row in _rows(name, result, compared.get(name, {}))]
    filled = [index for index in range(len(COLUMNS)) if index == 0 or any(row[index] for row in rows)]
    table = Table()
    for index in filled:
        table.add_column(COLUMNS[index], justify="left" if COLUMNS[index] in ("", "compared") else "right")
    for row in rows:
        table.add_row(*[row[index] for index in filled])
    return table


def _rows(name: str, result: Mapping[str, Any], compared: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Cells of COLUMNS."""
    share, profile = result.get("share_of_peak"), result.get("numbers", {})
    whole = [
        name,
        f"{result['median_seconds']:.4f}",
        str(result.get("images_per_second", "")),
        str(result["peak_mb"] or ""),
        str(result.get("gflop_per_second", "")),
        f"{share:.0%}" if share else "",
        "",
        "\n".join(f"{ratio['speed']:.2f}x {other}, memory {ratio['memory']:.2f}x" for other, ratio in compared.items()),
    ]
    spans = [
        [f"  {span}", f"{seconds:.4f}", "", "", "", "", f"{seconds / result['median_seconds']:.0%}", ""]
        for span, seconds in profile.get("spans", {}).items()
    ]
    waits = [
        [f"  the host waits at {place}", f"{count} times", *[""] * 6]
        for place, count in profile.get("synchronisations", {}).items()
    ]
    return [whole, *spans, *waits]
