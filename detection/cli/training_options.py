"""What the training commands share: their options, the config that these ask for, what they print in a distributed run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from detection.config import ClassifierConfig, Config, with_weights
from detection.errors import ConfigError

if TYPE_CHECKING:
    from detection.engine.train import TrainResult

ConfigT = TypeVar("ConfigT", Config, ClassifierConfig)


def run_parser(command: str, tool: str, description: str | None, weights_help: str) -> argparse.ArgumentParser:
    """The command line of a training command, `tools/TOOL.py`."""
    parser = argparse.ArgumentParser(
        prog=command,
        description=description,
        epilog=f"Several GPUs or machines: torchrun --nproc_per_node=N tools/{tool}.py ... See docs/training.md.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment")
    parser.add_argument("--resume", action="store_true", help="go on from last.pt in the output folder")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help=f"a new run that starts from {weights_help}, or a name of the zoo"
    )
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where checkpoints and logs go")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="e.g. train.learning_rate=0.002")
    return parser


def configured(options: argparse.Namespace, load: Callable[[Path, Sequence[str]], ConfigT]) -> ConfigT:
    """The config that the command line asks for. Raises ConfigError."""
    if options.resume and options.weights is not None:
        raise ConfigError("--resume goes on with a run, --weights starts a new one from a file: give one of the two")
    config = load(options.config, options.overrides)
    if options.weights is not None:
        config = with_weights(config, options.weights)
    if options.output_dir is not None:
        config = config.model_copy(update={"output_dir": options.output_dir})
    return config


def exit_code_if_stopped(result: TrainResult) -> int | None:
    """Tell of a run that a signal stopped, and return its exit code, 128 + the signal's number; None for a whole run."""
    if result.signal is None:
        return None
    tell(f"stopped at step {result.steps}; to go on, give the same command with --resume and without --weights")
    return 128 + result.signal


def tell(what: str | Table) -> None:
    """Print for people, on rank 0 of a distributed run."""
    from detection.engine.distributed import World

    if World.from_environment().is_main:
        Console(highlight=False).print(what, soft_wrap=True, markup=False)
