"""The command's dispatch and the one-line errors."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backbones.errors import BackboneError, CheckpointError
from detection.cli.main import COMMANDS, main, run, run_command
from detection.errors import USER_ERRORS, ConfigError, DatasetError


def raising(error: BaseException):
    def command(argv: Sequence[str] | None) -> int:
        raise error

    return command


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("resdet ")


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["eval-vos"]) == 2
    assert capsys.readouterr().err == "error: unknown command 'eval-vos'; did you mean 'eval-voc'?\n"


@pytest.mark.parametrize("kind", [ConfigError, DatasetError, CheckpointError, BackboneError])
def test_a_users_mistake_is_one_line_and_exit_code_2(kind, capsys):
    assert run(raising(kind("first\nsecond"))) == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_a_loader_workers_traceback_is_cut_to_its_last_line(capsys):
    message = (
        "Caught DatasetError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "loader.py", line 3, in f\n    raise DatasetError(x)\ndetection.errors.DatasetError: a.jpg is cut: mend it\n'
    )
    assert run(raising(DatasetError(message))) == 2
    assert capsys.readouterr().err == "error: a.jpg is cut: mend it\n"


def test_a_full_disk_is_told_in_one_line(capsys):
    assert run(raising(OSError(errno.ENOSPC, "No space left on device", "out.json"))) == 2
    assert capsys.readouterr().err == "error: out.json: No space left on device\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_output_that_cannot_be_written_too(capsys, number):
    assert run(raising(OSError(number, os.strerror(number)))) == 2
    assert capsys.readouterr().err == f"error: the output: {os.strerror(number)}\n"


def test_no_folder_for_temporary_files_is_one_line(capsys):
    assert run(raising(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"))) == 2
    error = "error: No usable temporary directory found in ['/tmp']; set TMPDIR to a folder that can be written\n"
    assert capsys.readouterr().err == error


def test_a_broken_connection_is_a_bug():
    with pytest.raises(ConnectionResetError):
        run(raising(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")))


def test_interruption_has_its_exit_code(capsys):
    assert run(raising(KeyboardInterrupt())) == 130


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


def test_success_is_zero_even_if_the_command_returns_nothing():
    assert run(lambda argv: None) == 0
    assert run(lambda argv: 3) == 3


def test_a_door_passes_its_arguments_and_exit_code():
    door = Path(__file__).parents[2] / "tools" / "eval_voc.py"
    result = subprocess.run(
        [sys.executable, str(door), "--weights", "absent.pt"], capture_output=True, text=True, cwd="/", check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and "absent.pt" in result.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_the_usage_line_names_the_command_or_the_tool(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["resdet", name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    assert capsys.readouterr().out.startswith(f"usage: resdet {name} ")
    monkeypatch.setattr(sys, "argv", ["tools/a_tool.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        run_command(name)
    assert capsys.readouterr().out.startswith("usage: a_tool.py ")


MAIN = "import sys; from detection.cli.main import main; sys.exit(main())"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments, unbuffered):
    command = [sys.executable, "-c", MAIN, *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def imported_by(*arguments: str) -> set[str]:
    """The packages that a process has loaded when `resdet ARGUMENTS` ends."""
    code = MAIN.replace("sys.exit(main())", "import atexit; atexit.register(lambda: print(*sys.modules)); sys.exit(main())")
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    return {module.partition(".")[0] for module in result.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments",
    [*([name, "--help"] for name in COMMANDS), ["--help"], ["train", "--nonsense"], ["train", "--config", "absent.yaml"]],
    ids=" ".join,
)
def test_help_and_a_wrong_argument_do_not_wait_for_torch(arguments):
    loaded = imported_by(*arguments)
    assert "detection" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "albumentations", "matplotlib"}


def test_errors_of_backbones_are_the_users_too():
    assert {CheckpointError, BackboneError} < set(USER_ERRORS)


def test_errors_and_configs_do_not_wait_for_torch():
    code = "import sys, detection.errors, detection.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 2000, "a b " * 5000])
@pytest.mark.parametrize("arguments", [["train", "--config"], ["demo", "--weights", "w.pt"], ["plot-runs"]])
def test_a_very_long_name_does_not_hide_the_reason(arguments, name, capsys):
    assert main([*arguments, name]) == 2
    line = capsys.readouterr().err
    assert (
        len(line) < 2100 and line.count("\n") == 1 and any(word in line for word in ("No such file", "too long", "there is no"))
    )
