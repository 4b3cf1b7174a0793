"""The body of benchmarks.md and its pictures, from the files of docs/results that `tools/benchmark.py --json` wrote.

Each file is a section, the newest first; in it a heading per part, a table per benchmark, and the plots of the part "cost".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from detection.analysis.plots import new_figure
from tools.benchmarks.parts import PARTS

Json = Mapping[str, Any]
INTRODUCTION = """\
Speed and memory beside the usual implementations, on the same work and in one run. On a CPU, and on a GPU:

```
python tools/benchmark.py detector profile cost scaling roi-pooling classifier loader evaluation start-up --json benchmark.json
python tools/benchmark.py detector profile cost --device cuda --precision bf16 --batch 1,8,16 --rois 128 --json gpu.json
```

`make gpu` runs what is worth most on a GPU that is lent for half an hour, this among it;
`python tools/gpu.py --list` shows the commands.

Each implementation runs in a process of its own, so that its peak memory (the process's, or the GPU's allocations) is its own.
A round times each once, one after the other; before the first round each does its work once untimed. Times are the median
over the rounds. *Faster than* is our speed over the other implementation's, the *share of the memory* our peak over its.
GFLOP/s counts two for each multiply-add of the convolutions and matrix products that an implementation really computes; *of the
peak* is that rate over the rate of a large matrix product of the same precision, on the same machine and in the same run.
"""
NOTES = {
    "detector": "The reference is torchvision's FasterRCNN with its ResNet-50 cut as C4 and frozen norms. Weights, images "
    "and boxes are random; both see the same ones, and both copy them to the device in each step. Training is "
    "forward, backward and an SGD update.",
    "profile": "Each second belongs to the innermost step. On a GPU the times are the device's own, and the places are listed "
    "where the host waits for it.",
    "cost": "Along each curve one of the three grows, and the others stay at 600x800, 128 RoIs per image and one image.",
    "scaling": "Each process has images of its own, and images per second are those of all together. The processes that share "
    "nothing show what the machine loses when all of its cores compute; ours exchange gradients as a training run does.",
    "start-up": "The prediction alone is one of a process that has made others before; all else counts as start-up: Python, "
    "imports, reading the checkpoint and the picture, what a first prediction takes longer, drawing and writing.",
}
BENCHMARK_COLUMNS = ("", "time", "images/s", "peak MB", "GFLOP/s", "of the peak", "faster than", "share of the memory of")
PANELS = {
    "image": lambda point: f"{point['height']}x{point['width']}",
    "RoIs per image": lambda point: point["rois"],
    "images per batch": lambda point: point["batch"],
}
COST_JOBS = ("ours training", "ours inference")


def read(folder: Path) -> dict[str, Json]:
    """The benchmarks of a folder by the names of their files, the newest first."""
    found = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    kept = [(name, result) for name, result in found if result.get("kind") == "benchmark"]
    return dict(sorted(kept, key=lambda item: item[1]["date"], reverse=True))


def body(results: Mapping[str, Json]) -> str:
    """All of the page below its title."""
    sections = ["\n".join(_section(name, result)) for name, result in results.items()]
    return "\n".join([INTRODUCTION, *(sections or ["Nothing was measured yet.\n"])])


def _section(name: str, result: Json) -> Iterator[str]:
    yield f"## {result.get('heading', name)}\n\n{result['title']}\n"
    yield from (f"- {key}: {result[key]}" for key in ("hardware", "versions", "date", "commit") if key in result)
    yield from (f"- command: `{command}`" for command in result["commands"])
    yield from (f"- {note}" for note in result.get("notes", []))
    for part in dict.fromkeys(benchmark["part"] for benchmark in result["benchmarks"]):
        measured = [benchmark for benchmark in result["benchmarks"] if benchmark["part"] == part]
        summary = PARTS.get(part, "")
        yield f"\n### {part}\n\n{' '.join(filter(None, [f'{summary[:1].upper()}{summary[1:]}.', NOTES.get(part)]))}\n"
        yield from (
            _cost(name, measured) if part == "cost" else (line for benchmark in measured for line in _benchmark(benchmark))
        )
    yield ""


def _benchmark(benchmark: Json) -> Iterator[str]:
    """The title, a table of the implementations, one of the steps of each that was profiled, and what follows from all."""
    yield f"**{benchmark['title']}**\n"
    yield from table(
        BENCHMARK_COLUMNS, [_implementation(name, entry, benchmark) for name, entry in benchmark["results"].items()]
    )
    for name, entry in benchmark["results"].items():
        yield from _profile(name, entry)
    figures = benchmark.get("figures", {})
    yield from (f"- {name}: {value}" for name, value in figures.items())
    if figures:
        yield ""


def _implementation(name: str, entry: Json, benchmark: Json) -> list[str]:
    ratios = benchmark["ratios"].get(name, {}).items()
    share = entry.get("share_of_peak")
    return [
        name,
        duration(entry["median_seconds"]),
        str(entry.get("images_per_second", "")),
        str(entry["peak_mb"] or ""),
        str(entry.get("gflop_per_second", "")),
        f"{share:.0%}" if share else "",
        *("; ".join(f"{other}: {ratio[key]:.2f}x" for other, ratio in ratios) for key in ("speed", "memory")),
    ]


def _profile(name: str, entry: Json) -> Iterator[str]:
    numbers = entry.get("numbers", {})
    if "spans" in numbers:
        spans = numbers["spans"].items()
        rows = [[span, duration(seconds), f"{seconds / entry['median_seconds']:.0%}"] for span, seconds in spans]
        yield from table((f"step of {name}", "time", "of the whole"), rows)
    if "synchronisations" in numbers:
        yield from table(
            (f"{name}: the host waits at", "times"), [[*map(str, row)] for row in numbers["synchronisations"].items()]
        )


def _cost(name: str, measured: Sequence[Json]) -> Iterator[str]:
    """The points as one table, and the picture of the curves."""
    columns = [*PANELS, "training, time", "training, MB", "inference, time", "inference, MB"]
    rows = []
    for benchmark in measured:
        entries = [benchmark["results"][job] for job in COST_JOBS]
        figures = [figure for entry in entries for figure in (duration(entry["median_seconds"]), f"{entry['peak_mb']:.4g}")]
        rows.append([*(str(value(benchmark["settings"])) for value in PANELS.values()), *figures])
    yield from table(columns, rows)
    yield f"![Seconds and memory against the image's size, the RoIs and the batch](images/{picture_name(name)})\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown, without the columns that are empty in every row, and an empty line after it."""
    kept = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in rows)]
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(line[index] for index in kept)} |" for line in lines] + [""]


def duration(seconds: float) -> str:
    """A time with the unit that suits it: 34.86 s, 12.3 ms, 76.7 µs."""
    if seconds >= 0.1:
        return f"{seconds:.4g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def picture_name(name: str) -> str:
    """The file in docs/images of the curves of a result."""
    return f"cost_{name}.svg"


def pictures(results: Mapping[str, Json]) -> dict[str, Json]:
    """The pictures that the page shows, by name, and the result that each is drawn from."""
    with_cost = {name: result for name, result in results.items() if any("settings" in c for c in result["benchmarks"])}
    return {picture_name(name): result for name, result in with_cost.items()}


def draw(result: Json, file: Path) -> None:
    """The curves of the part "cost": seconds solid and memory dashed. The same input gives the same file."""
    measured = [benchmark for benchmark in result["benchmarks"] if benchmark["part"] == "cost"]
    figure = new_figure(12, 3.8)
    for axes, curve in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _draw_curve(axes, curve, measured)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "resdet"}):
        figure.savefig(file, metadata={"Date": None})


def _draw_curve(axes: Axes, curve: str, measured: Sequence[Json]) -> None:
    """One panel: the points that differ in nothing else than its own quantity."""
    others = [value for name, value in PANELS.items() if name != curve]
    kinds = [tuple(value(benchmark["settings"]) for value in others) for benchmark in measured]
    common = max(kinds, key=kinds.count)  # all points of the curve have it
    chosen = [benchmark for benchmark, kind in zip(measured, kinds, strict=True) if kind == common]
    chosen.sort(key=lambda benchmark: benchmark["settings"]["height"])
    chosen.sort(key=lambda benchmark: (benchmark["settings"]["rois"], benchmark["settings"]["batch"]))
    names = [str(PANELS[curve](benchmark["settings"])) for benchmark in chosen]
    memory = axes.twinx()
    for color, job in zip(("C0", "C1"), COST_JOBS, strict=True):
        entries = [benchmark["results"][job] for benchmark in chosen]
        axes.plot(names, [entry["median_seconds"] for entry in entries], "-o", color=color, label=job.removeprefix("ours "))
        memory.plot(names, [entry["peak_mb"] for entry in entries], "--", color=color, alpha=0.6)
    axes.set(xlabel=curve, ylabel="seconds (solid)")
    axes.set_ylim(bottom=0)
    memory.set_ylabel("peak MB (dashed)")
    memory.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
