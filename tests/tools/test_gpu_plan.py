"""The plan for a lent GPU: its commands exist and read, parts are not run twice, and one that fails stops no other."""

import json
import time

import pytest

from detection.cli.commands import eval_voc, pretrain, train
from detection.cli.main import run
from detection.cli.options import load_training_config, parse_with_overrides
from detection.config import load_classifier_config, load_config
from tools.benchmarks import command as benchmark_command
from tools.benchmarks.gpu_plan import ROOT, GpuPart, main, plan, run_parts

PYTHON = {"ok": "pass", "bad": "raise SystemExit(3)"}


def part(name: str, *codes: str, **options) -> GpuPart:
    return GpuPart(name, tuple(("-c", code) for code in codes), **options)


@pytest.mark.parametrize("weights", [None, "weights.pth"])
def test_each_command_is_one_that_its_tool_reads(tmp_path, weights):
    parts = plan(tmp_path, tmp_path / "data", weights)
    assert len({each.name for each in parts}) == len(parts) >= 12
    for each in parts:
        for words in each.commands:
            tool, rest = tool_of(list(words))
            if tool == "tools/benchmark.py":
                arguments = benchmark_command.build_parser().parse_args(rest)
                benchmark_command.checked_options(arguments, arguments.parts)
            elif tool in ("tools/train_net.py", "tools/pretrain.py"):
                detector = "train_net" in tool
                options = (train if detector else pretrain).build_parser().parse_intermixed_args(rest)
                options.config = ROOT / options.config
                if detector:
                    output = load_training_config(options, load_config).output_dir
                else:
                    output = load_training_config(options, load_classifier_config).output_dir
                assert output.parent == tmp_path
            elif tool == "tools/eval_voc.py":
                parse_with_overrides(eval_voc.build_parser(), rest)
            else:
                assert tool == "pytest"


def tool_of(words: list[str]) -> tuple[str, list[str]]:
    if words[:2] == ["-m", "torch.distributed.run"]:
        words = words[4:]
    if words[0] == "-m":
        return words[1], words[2:]
    assert (ROOT / words[0]).exists()
    return words[0], words[1:]


def test_parts_run_in_order_and_not_twice(tmp_path):
    seen, result = tmp_path / "seen", tmp_path / "numbers.json"
    append = f"open({str(seen)!r}, 'a').write"
    parts = [
        part("first", f"{append}('1')", f"open({str(result)!r}, 'w').write('[7]')", results=(result,)),
        part("broken", PYTHON["bad"], f"{append}('never')"),
        part("second", f"{append}('2')"),
        part("pair", f"{append}('never')", least_gpus=2),
    ]
    found = dict(run_parts(parts, tmp_path, 1, None))
    assert found["first"] == found["second"] == "done" and found["broken"].startswith("failed with exit code 3")
    assert found["pair"] == "left out: it needs 2 GPUs, here are 1"
    assert seen.read_text() == "12"
    written = json.loads((tmp_path / "first.json").read_text())
    assert written["results"] == {"numbers.json": [7]} and len(written["commands"]) == 2 and written["seconds"] >= 0
    assert not (tmp_path / "broken.json").exists()
    assert dict(run_parts(parts, tmp_path, 1, None))["first"] == "done before"
    assert seen.read_text() == "12"


def test_a_part_is_stopped_when_the_time_is_over(tmp_path):
    parts = [part("long", "import time; time.sleep(60)"), part("next", PYTHON["ok"])]
    started = time.monotonic()
    assert list(run_parts(parts, tmp_path, 1, 0.5)) == [
        ("long", "stopped, as the time is over"),
        ("next", "left for the next time"),
    ]
    assert time.monotonic() - started < 30 and not list(tmp_path.iterdir())


def test_a_stopped_training_goes_on(tmp_path):
    def resumed() -> list[tuple[str, ...]]:
        return [
            words for each in plan(tmp_path, tmp_path, tmp_path / "w.pth") for words in each.commands if "--resume" in words
        ]

    assert not resumed()
    for name in ("cifar_plain56", "voc12_animals"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last.pt").touch()
    animals, cifar = resumed()
    assert "model.backbone=cifar_plain56" in cifar and "tools/train_net.py" in animals and "--weights" not in animals


def test_the_plan_is_printed_and_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    assert run(main, ["--list", "--output", str(tmp_path / "out"), "tests", "profile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["tests", "profile"] and "-m gpu" in lines[0]
    assert run(main, ["sped"]) == 2
    assert "unknown part 'sped': choose of tests, detector" in capsys.readouterr().err
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run(main, ["tests", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "cuda is not there" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
