"""What is worth running on a GPU that is lent for a while, the most valuable first: tests, speed, and long trainings.

Each part is commands of this project, and writes DIR/PART.json: its commands, seconds, the machine, and the files that they
wrote. A part that has such a file is done and not run again; a training that was stopped goes on where it was. Without
--minutes all parts run to their end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from detection.cli.arguments import CommandParser, any_path, number_from, output_folder
from detection.cli.main import SOME_FAILED, run
from detection.cli.output import say
from detection.errors import ConfigError

ROOT = Path(__file__).parents[2]
PRECISION = ("--precision", "bf16", "--batch", "1,8")
ANIMALS = "configs/voc_r50_half.yaml"
CIFAR_NETWORKS = ("cifar_resnet20", "cifar_plain20", "cifar_resnet56", "cifar_plain56")


@dataclass(frozen=True)
class GpuPart:
    """Commands whose results belong together. `least_gpus`: how many GPUs they need."""

    name: str
    commands: tuple[tuple[str, ...], ...]  # words after the interpreter's name
    results: tuple[Path, ...] = ()  # JSON files that the commands write
    least_gpus: int = 1


def plan(folder: Path, data: Path, weights: Path | None = None, device: str = "cuda") -> list[GpuPart]:
    """The parts in their order. `data` has the folders voc12_animals and cifar10; `weights` are ANIMALS's, None: random."""
    parts = [GpuPart("tests", (("-m", "pytest", "-m", "gpu", "-q"),))]
    for name, arguments in {
        "detector": ("detector",),
        "profile": ("profile",),
        "pyramid": ("detector", "profile", "--architecture", "fpn"),
        "masks": ("detector", "profile", "--architecture", "fpn_mask"),
        "roi-pooling": ("roi-pooling",),
    }.items():
        file = folder / f"benchmark_{name}.json"
        options = () if name == "roi-pooling" else PRECISION
        command = ("tools/benchmark.py", *arguments, "--device", device, *options, "--json", str(file))
        parts.append(GpuPart(name, (command,), (file,)))
    parts.append(GpuPart("overfit", (("-m", "pytest", "-q", "tests/test_overfit.py"),)))
    parts.append(animals(folder, data, weights))
    for network in CIFAR_NETWORKS:
        output = folder / network
        overrides = (f"model.backbone={network}", f"data.root={data / 'cifar10'}")
        command = training("pretrain", "configs/cifar10.yaml", output, overrides)
        parts.append(GpuPart(network, (command,), (output / "summary.json",)))
    processes = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    start = (*training("pretrain", "configs/cifar10.yaml", folder / "two", overrides), "train.steps=200", "bn_images=0")
    parts.append(GpuPart("two-processes", ((*processes, *start),), least_gpus=2))
    return parts


def animals(folder: Path, data: Path, weights: Path | None) -> GpuPart:
    """A detector on real photographs until it has converged: 700 to train on, 300 to measure."""
    root = data / "voc12_animals" / "VOCdevkit"
    train, val = (f"[{{format: voc, root: {root}, year: 2012, split: {split}}}]" for split in ("train", "val"))
    # Of the config's 4 images; of 16 at once it is a quarter as many.
    steps = 24000 if weights is None else 6000
    # Norms of random weights are no constants, and nothing of them is worth keeping.
    fresh = ("model.norm=bn", "model.freeze_stages=0") if weights is None else ()
    overrides = (f"data.train={train}", f"data.val={val}", "train.images_per_device=16", f"train.steps={steps}", *fresh)
    output = folder / "voc12_animals"
    command = training("train_net", ANIMALS, output, overrides, weights)
    result = folder / "voc12_animals_eval.json"
    evaluation = ("tools/eval_voc.py", "--weights", str(output / "last.pt"), "--json", str(result))
    return GpuPart("voc12_animals", (command, evaluation), (result,))


def training(tool: str, config: str, output: Path, overrides: Sequence[str], weights: Path | None = None) -> tuple[str, ...]:
    """A training's command, from random weights or those of a file, which goes on where an earlier one was stopped."""
    start = () if weights is None else ("--weights", str(weights))
    beginning = ("--resume",) if (output / "last.pt").exists() else start
    return (f"tools/{tool}.py", "--config", config, "--output-dir", str(output), *overrides, *beginning)


def run_parts(parts: Sequence[GpuPart], folder: Path, num_gpus: int, seconds: float | None) -> Iterator[tuple[str, str]]:
    """Run what is not done yet, until the time is over: the name of each part, and how it ended in a word or two."""
    end = None if seconds is None else time.monotonic() + seconds
    for part in parts:
        if (folder / f"{part.name}.json").exists():
            yield part.name, "done before"
        elif part.least_gpus > num_gpus:
            yield part.name, f"left out: it needs {part.least_gpus} GPUs, here are {num_gpus}"
        elif end is not None and time.monotonic() >= end:
            yield part.name, "left for the next time"
        else:
            yield part.name, run_part(part, folder, end)


def run_part(part: GpuPart, folder: Path, end: float | None) -> str:
    """Run a part's commands one after the other, and write its JSON if all succeed."""
    started = time.monotonic()
    for command in part.commands:
        code = run_until([sys.executable, *command], end)
        if code is None:
            return "stopped, as the time is over"
        if code:
            return f"failed with exit code {code}: {shlex.join(['python', *command])}"
    write_result(part, folder, time.monotonic() - started)
    return "done"


def run_until(command: Sequence[str], end: float | None) -> int | None:
    """The exit code of a command; None where it was asked to stop at `end`, at which a training saves what it has."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait(None if end is None else max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
        return None
    except KeyboardInterrupt:
        process.wait()
        raise


def write_result(part: GpuPart, folder: Path, seconds: float) -> None:
    """DIR/PART.json."""
    import torch

    from detection.analysis.provenance import current_provenance
    from detection.files import write_json

    machine = current_provenance(torch.device("cuda" if torch.cuda.is_available() else "cpu"), None).as_json()
    found: dict[str, Any] = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in part.results if file.exists()}
    commands = [shlex.join(["python", *command]) for command in part.commands]
    write_json(folder / f"{part.name}.json", {"commands": commands, "seconds": round(seconds, 1), **machine, "results": found})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = CommandParser(prog="gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="some of the parts alone; default: all, in their order")
    parser.add_argument("--output", type=output_folder, default=Path("runs/gpu"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--data", type=any_path, default=Path("datasets"), metavar="DIR", help="voc12_animals/ and cifar10/")
    parser.add_argument(
        "--weights", type=any_path, metavar="FILE", help="of configs/voc_r50_half.yaml, for the photographs; default: random"
    )
    parser.add_argument("--minutes", type=number_from(0, 10_000), metavar="M", help="after which nothing more is begun")
    parser.add_argument("--list", action="store_true", help="print the commands, and run none")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plan; 1 if a part failed. Raises ConfigError for an unknown part, and where there is no GPU."""
    options = build_parser().parse_args(argv)
    folder = options.output.absolute()
    parts = plan(folder, options.data.absolute(), options.weights and options.weights.absolute())
    names = [part.name for part in parts]
    for name in options.parts:
        if name not in names:
            raise ConfigError(f"unknown part '{name}': choose of {', '.join(names)}")
    chosen = [part for part in parts if not options.parts or part.name in options.parts]
    if options.list:
        for part in chosen:
            for command in part.commands:
                say(f"{part.name}: {shlex.join(['python', *command])}")
        return 0
    import torch

    from detection.device import find_device

    find_device("cuda")
    folder.mkdir(parents=True, exist_ok=True)
    seconds = None if options.minutes is None else options.minutes * 60
    failed = False
    for name, how in run_parts(chosen, folder, torch.cuda.device_count(), seconds):
        say(f"{name}: {how}")
        failed |= how.startswith("failed")
    return SOME_FAILED if failed else 0


def run_command() -> NoReturn:
    """Run with the process's arguments and exit, mistakes in one line: all that `tools/gpu.py` does."""
    sys.exit(run(main))
