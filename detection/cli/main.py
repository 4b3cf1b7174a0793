"""The one command, `resdet COMMAND ...`, and what all commands share: errors in one line, exit codes.

Exit codes: 0 done, 1 some of several inputs failed, 2 a mistake of the user (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import keyword
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NoReturn

from backbones.errors import shorten
from detection.allocator import keep_freed_memory
from detection.errors import USER_ERRORS, OtherProcessError, did_you_mean
from detection.terminal import print_error, safe_output

CommandMain = Callable[[Sequence[str] | None], int | None]

SOME_FAILED = 1
USER_MISTAKE = 2
INTERRUPTED = 130
_OUTPUT_FAILS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # a full disk, a limit, a terminal that has gone

# Commands by name, with the line that `resdet --help` shows. Modules are imported only when called: torch is slow to load.
COMMANDS = {
    "quickstart": "the whole story in ten minutes: pre-train, fine-tune, evaluate, draw",
    "new": "a config that fits a folder of labelled images",
    "train": "train a detector, by a config or on a folder of labelled images",
    "pretrain": "train a classifier, the detector's first stage",
    "train-loc": "train an ImageNet localiser: where the classes are that a classifier finds",
    "eval-voc": "Pascal VOC's average precision, of a model or of detection files",
    "eval-coco": "COCO's twelve numbers, of a model or of a result file",
    "eval-ilsvrc": "ImageNet's measures, of a model or of submitted files: DET's average precision, CLS-LOC's errors",
    "compare": "which of several detectors is better, and whether that is more than chance",
    "report": "what is wrong with a detector: one page that says it, of a run or of detection files",
    "ablation": "each improvement of the paper's system: what it gains and what it costs",
    "eval-classifier": "top-1 and top-5 error of a classifier",
    "demo": "draw what a detector finds in images, folders, videos or a camera",
    "track": "follow objects through videos: each keeps its number",
    "predict": "labels of what a detector finds, for labelling programs to import",
    "import": "a data set in any format into COCO, YOLO or VOC, pixels untouched",
    "convert-weights": "weights of torchvision, timm, detectron2 and others into a checkpoint of this project",
    "export": "a detector or a backbone as an ONNX file or a torch.export program",
    "plot-runs": "training curves of several runs in one plot",
    "layer-responses": "how strongly the layers of classifiers respond",
    "split": "divide labelled images into those to train on and those to evaluate on",
    "check-dataset": "every fault of a data set at once, and a page that shows what is in it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """`resdet COMMAND ...`: run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return run(_print_usage)
    name, *rest = arguments
    if name == "--version":
        return run(_print_version)
    if name not in COMMANDS:
        return _fail(_unknown(name))
    if argv is None:
        sys.argv[0] = f"resdet {name}"  # what argparse shows in front of its usage line
        keep_freed_memory()
    return run(command_main(name), rest)


def run_command(name: str) -> NoReturn:
    """Run a command with the process's arguments and exit: all that a file of tools/ does."""
    keep_freed_memory()
    sys.exit(run(command_main(name)))


def command_main(name: str) -> CommandMain:
    """The `main` of the command's module: 'eval-voc' -> detection.cli.commands.eval_voc.main."""

    def imported(argv: Sequence[str] | None) -> int | None:
        code: int | None = importlib.import_module(module_name(name)).main(argv)
        return code

    return imported


def module_name(command: str) -> str:
    """The module of a command; one that is a word of Python's ends in "_": 'import' -> detection.cli.commands.import_."""
    stem = command.replace("-", "_")
    return f"detection.cli.commands.{stem}{'_' if keyword.iskeyword(stem) else ''}"


def run(command: CommandMain, argv: Sequence[str] | None = None) -> int:
    """Call a command's main. A user's mistake becomes one line on stderr and exit code 2; a bug keeps its traceback."""
    # What Pillow has to say of a file's metadata; files that cannot be used are errors of our own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with safe_output():
        try:
            return _run_and_flush(command, argv)
        except USER_ERRORS as error:
            if isinstance(error.__cause__, OtherProcessError):
                return USER_MISTAKE  # one line for a distributed run, not one for each process
            return _fail(_one_line(str(error)))
        except BrokenPipeError:
            _forget_output()
            return 1
        except OSError as error:
            # A full disk or a forbidden file is the user's to mend; a broken connection between processes is not.
            if error.filename is None and isinstance(error, FileNotFoundError):  # tempfile's: every folder is read-only
                return _fail(f"{error.strerror}; set TMPDIR to a folder that can be written")
            if error.filename is None and error.errno not in _OUTPUT_FAILS:
                raise
            _forget_output()
            return _fail(f"{'the output' if error.filename is None else error.filename}: {error.strerror}")
        except KeyboardInterrupt:
            print_error("interrupted")
            return INTERRUPTED


def _run_and_flush(command: CommandMain, argv: Sequence[str] | None) -> int:
    """The command's exit code, after its output is written: at exit Python would complain of a reader that has gone."""
    try:
        code = command(argv) or 0
    except SystemExit:  # argparse's, after a --help
        _flush_output()
        raise
    _flush_output()
    return code


def _flush_output() -> None:
    if sys.stdout is not None:  # as it is where the process was started with a closed one
        sys.stdout.flush()


def _forget_output() -> None:
    """Let go of what could not be written, as to `| head` or a full disk; Python would complain of it again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str) -> int:
    print_error(f"error: {message}")
    return USER_MISTAKE


def _one_line(message: str) -> str:
    """The message in one line. A DataLoader's worker hands over its whole traceback; only its last line is for the user."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Caught "):
        return lines[-1].partition("Error: ")[2] or lines[-1]
    return " ".join(lines)


def _print_usage(argv: Sequence[str] | None) -> None:
    print(_usage())


def _print_version(argv: Sequence[str] | None) -> None:
    print(f"resdet {_version()}")


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(["usage: resdet COMMAND ...", "", *rows, "", "resdet COMMAND --help shows the command's options."])


def _unknown(name: str) -> str:
    return f"unknown command {shorten(name)}{did_you_mean(name, COMMANDS, 'one of ' + ', '.join(COMMANDS))}"


def _version() -> str:
    try:
        return version("resdet")
    except PackageNotFoundError:
        return "(not installed)"
