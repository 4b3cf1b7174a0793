"""The benchmark measures what it says, on tiny work; nothing here is timed against a bound."""

import json
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console

from detection.cli.main import run
from detection.errors import TrainingError
from detection.structures import Batch
from docs import benchmark_page
from tests.pretended_gpu import pretended_gpu, to_host
from tests.tools.implementations import ending, failing, huge_pages, sleeper, waiting
from tools.benchmarks import cost, operators, scaling, start_up
from tools.benchmarks.benchmark import Benchmark, Result, ratios, shares_of_peak
from tools.benchmarks.command import batch_sizes, main, show, to_dict
from tools.benchmarks.detector import (
    DetectorCase,
    compared_with_bars,
    images_and_boxes,
    no_span,
    our_detector,
    our_training,
    our_work,
    torchvision_work,
)
from tools.benchmarks.evaluation import EVALUATION_COUNTS, evaluation_work
from tools.benchmarks.operators import pooling_work
from tools.benchmarks.parts import PARTS, Options, benchmarks
from tools.benchmarks.processes import run_benchmark
from tools.benchmarks.profile import Stopwatch, profiled_work, synchronisations, time_steps, timed_inference
from tools.benchmarks.reference import build_torchvision
from tools.benchmarks.worker import count_gigaflops

TINY = DetectorCase("train", "fp32", size_hw=(96, 128), num_rois=8, proposals=8, backbone="resnet18")
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_references_run_without_what_importing_this_package_sets():
    implementations = dict.fromkeys(("torchvision fp32", "plain loop", "ours", "1 process"), huge_pages)
    results = run_benchmark(Benchmark("environment", implementations, count_flops=False), rounds=1)
    assert [result.numbers["huge pages"] for result in results.values()] == ["0", "0", "1", "1"]


def test_seconds_of_an_implementation_are_its_own():
    """Several processes that work together take as long as the slowest."""
    group = [partial(sleeper, 0.01), partial(sleeper, 0.05)]
    results = run_benchmark(
        Benchmark("sleep", {"other": partial(sleeper, 0.3), "ours": group}, images=2, count_flops=False), rounds=3
    )
    mine, theirs = results["ours"], results["other"]
    assert len(mine.seconds) == 3 and mine.numbers == {"AP": 0.5}
    assert (mine.images, theirs.images) == (4, 2)
    assert mine.median >= 0.05 and theirs.median >= 0.3  # what they sleep at least
    assert mine.peak_mb > 50 and theirs.to_dict()["images_per_second"] <= 2 / 0.3
    assert set(ratios(results)) == {"ours"}
    assert ratios(results)["ours"]["other"]["speed"] == round(mine.speed / theirs.speed, 2)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([ending], "'broken' of the benchmark ended without an answer"),
        # The one that failed is not waited for after the one that goes on.
        ([waiting, failing], "'broken' of the benchmark failed: ValueError: no such thing"),
    ],
)
def test_an_implementation_that_fails_is_named(group, message):
    with pytest.raises(TrainingError, match=message):
        run_benchmark(Benchmark("fail", {"broken": group}, count_flops=False))


def test_shares_of_the_peak_are_of_the_same_precision():
    results = {
        "ours bf16": Result(seconds=[2.0], gigaflops=100),
        "ours fp32": Result(seconds=[5.0], gigaflops=100),
        "loader": Result(seconds=[1.0]),
        "matrix product bf16": Result(seconds=[1.0], gigaflops=200),
    }
    assert shares_of_peak(results) == {"ours bf16": 0.25}


def test_what_is_aimed_at_is_said_beside_what_was_found():
    results = {"torchvision fp32": Result([3.0]), "ours fp32": Result([2.0]), "ours bf16": Result([1.0])}
    found = compared_with_bars({"fp32": 1.5, "bf16": 2.5}, results)
    assert found == {
        "ours fp32 over torchvision fp32 (aim: at least 1.5)": 1.5,
        "ours bf16 over torchvision fp32 (aim: at least 2.5)": 3.0,
    }
    assert not compared_with_bars({"fp32": 1.5}, {"ours fp32": Result([2.0])})


def test_images_a_second_are_compared_where_there_are_images():
    results = {"1 process": Result([2.0], images=1), "ours in 2 processes": Result([2.5], images=2)}
    assert ratios(results)["ours in 2 processes"]["1 process"]["speed"] == 1.6


def test_work_is_counted_in_two_flops_a_multiply_add():
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    assert count_gigaflops(lambda: a @ b) == pytest.approx(2 * 10 * 20 * 30 / 1e9)


@pytest.mark.parametrize("architecture", ["c4", "c4_max", "fpn", "fpn_mask"])
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_both_detectors_do_the_same_work(mode, architecture):
    """Ours computes no more; it leaves out what RoIs have in common, and cells that nothing needs."""
    case = DetectorCase(mode, "fp32", size_hw=(96, 128), num_rois=16, proposals=10, architecture=architecture, detections=5)
    mine, theirs = (count_gigaflops(setup(case)) for setup in (our_work, torchvision_work))
    assert 0.7 * theirs < mine <= theirs


@pytest.mark.parametrize("architecture", ["c4", "c4_max", "fpn"])
@torch.no_grad()
def test_both_detectors_have_the_same_proposals_and_find_the_same(architecture):
    case = DetectorCase("infer", "fp32", size_hw=(96, 128), proposals=10, architecture=architecture, detections=5)
    model = our_detector(case).eval()
    reference: Any = build_torchvision(model).eval()
    images = images_and_boxes(case)[0]
    features = model.extract(Batch(images, [case.size_hw]))
    mine = model.propose(features, [case.size_hw])[0]
    inputs = reference.transform(list(images.float() / 255))[0]
    maps = reference.backbone(inputs.tensors)
    theirs = reference.rpn(inputs, {"0": maps} if isinstance(maps, torch.Tensor) else maps)[0][0]
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-2)
    assert len(mine) == 10
    (found,) = model.predict([images[0].permute(1, 2, 0).numpy()])
    assert len(found) == len(reference(list(images.float() / 255))[0]["boxes"]) == 5
    vectors = torch.randn(3, model.roi_head.conv5.channels)
    logits, deltas = model.roi_head.logits_and_deltas(vectors, None)
    their_logits, their_deltas = reference.roi_heads.box_predictor(vectors)
    torch.testing.assert_close(their_logits, logits.roll(1, dims=1))
    torch.testing.assert_close(their_deltas[:, 4:], deltas.flatten(1))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("kind", ["align", "max"])
def test_both_operators_pool_the_same(kind, direction):
    def pooled(who: Literal["ours", "torchvision"]) -> Any:
        found: Any = pooling_work(who, kind=kind, direction=direction, dtype=torch.float32, num_rois=8)()
        return found[0] if direction == "backward" else found

    mine, theirs = pooled("ours"), pooled("torchvision")
    torch.testing.assert_close(mine.contiguous(), theirs.contiguous(), rtol=1e-3, atol=1e-4)


def test_both_evaluations_give_the_same_numbers(monkeypatch):
    for name, count in {"images": 30, "boxes": 200, "detections": 1500, "classes": 5}.items():
        monkeypatch.setitem(EVALUATION_COUNTS, name, count)
    mine: Any = evaluation_work("ours")()
    theirs: Any = evaluation_work("pycocotools")()
    assert mine == pytest.approx(theirs, abs=1e-9) and mine["AP"] > 0.05


LEARNT = {"RoI pooling, backward", "RPN, backward", "trunk, backward", "optimizer"}


@pytest.mark.parametrize(
    ("mode", "architecture", "spans"),
    [
        ("train", "c4", {"conv5", "conv5, backward", *LEARNT}),
        ("infer", "c4", {"conv5", "RoI pooling", "NMS of proposals", "transfer", "selection, NMS per class"}),
        ("train", "fpn", {"two-layer head", "two-layer head, backward", "pyramid, backward", *LEARNT}),
        ("train", "fpn_mask", {"mask head", "mask head, backward", "pyramid, backward", *LEARNT}),
        ("infer", "fpn", {"two-layer head", "RoI pooling", "pyramid", "NMS of proposals", "selection, NMS per class"}),
    ],
)
def test_a_profile_tells_the_steps_apart(mode, architecture, spans, monkeypatch):
    """By a clock that shows 0, 1, 2, ...: every tick between the first look at it and the last belongs to one step."""
    backward = torch.Tensor.backward
    work = profiled_work(replace(TINY, mode=mode, architecture=architecture))
    work()
    shown: list[int] = []

    def clock(self):
        shown.append(len(shown))
        return shown[-1]

    monkeypatch.setattr(Stopwatch, "now", clock)
    result: Any = work()
    found = result["spans"]
    assert spans <= set(found) and sum(found.values()) == shown[-1]
    assert not any(name.endswith("backward") for name in found) or mode == "train"
    assert torch.Tensor.backward is backward  # nothing stays wrapped


@pytest.mark.parametrize("architecture", ["c4", "fpn"])
def test_a_profile_changes_no_gradient(architecture):
    gradients = []
    case = replace(TINY, architecture=architecture)
    for watched in (False, True):
        model = our_detector(case)
        watch = Stopwatch(torch.device("cpu"))
        if watched:
            time_steps(model, watch)
        work = our_training(model, model, case, watch.span if watched else no_span)
        torch.manual_seed(1)
        work()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for plain_gradient, watched_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(plain_gradient, watched_gradient, rtol=1e-3, atol=1e-5)


def test_a_profiled_inference_detects_what_predict_does():
    case = replace(TINY, mode="infer")
    model, watched = our_detector(case), our_detector(case)
    for each in (model, watched):
        each.use_test_config(each.config.test.model_copy(update={"score_threshold": 0.0}))
    watch = Stopwatch(torch.device("cpu"))
    time_steps(watched, watch)
    (found,) = timed_inference(watched, case, watch)()
    (expected,) = model.predict(list(images_and_boxes(case)[0]))
    assert len(expected)
    for name in ("boxes", "scores", "labels"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=0)


def test_the_stopwatch_of_a_gpu_is_that_gpus_own(monkeypatch):
    recorded = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            recorded.append(stream)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    Stopwatch(torch.device("cuda:1")).now()
    assert recorded == ["stream of cuda:1"]


@pytest.mark.parametrize("who", ["ours", "torchvision"])
@pytest.mark.parametrize("kind", operators.NAMES)
def test_pooling_alone_is_measured_on_the_device_that_is_asked_for(monkeypatch, kind, who):
    monkeypatch.setattr(operators, "MAP", (2, 38, 50))
    setup = partial(pooling_work, who, kind=kind, direction="forward", dtype=torch.float32, num_rois=3)
    expected: Any = setup()()
    with pretended_gpu() as gpu:
        found: Any = setup(device="cuda:0")()
        assert found.device.type == "cuda" and gpu.launches.total() > 0
        torch.testing.assert_close(to_host(found), expected, rtol=1e-4, atol=1e-4)


def test_waits_for_a_gpu_are_counted_by_place(monkeypatch):
    modes: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work():
        for _ in range(2):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    ((place, count),) = synchronisations(work).items()
    assert place.startswith("test_benchmark.py:") and count == 2 and modes == ["warn", 0]


def test_cost_is_measured_along_three_curves():
    points = cost.points()
    assert len(points) == len(set(points)) == 4 + 4 + 3 - 2
    for benchmark, point in zip(cost.benchmarks(Options(), Path()), points, strict=True):
        assert benchmark.settings == vars(point) and benchmark.images == point.batch


def test_joined_processes_train(monkeypatch):
    monkeypatch.setattr(scaling, "SIZE_HW", (96, 128))
    monkeypatch.setattr(scaling, "ROIS", 8)
    (benchmark,) = scaling.benchmarks(Options(processes=2), Path())
    groups = {name: [setup] if callable(setup) else list(setup) for name, setup in benchmark.implementations.items()}
    assert [len(group) for group in groups.values()] == [1, 2, 2] and benchmark.threads == 1
    joined = {name: group for name, group in groups.items() if name.startswith("ours")}
    (result,) = run_benchmark(replace(benchmark, implementations=joined), rounds=1).values()
    assert result.images == 2 and result.median > 0


def test_what_a_command_adds(tmp_path):
    results = {start_up.WHOLE: Result([5.0]), start_up.PREDICTION: Result([1.5]), start_up.IMPORTS: Result([2.5])}
    assert list(start_up.added_seconds(results).values()) == [3.5, 1.0]
    work = start_up.demo_work(str(tmp_path), replace(TINY, mode="infer"))
    work()
    assert (tmp_path / "drawn/detections.json").exists() and start_up.prediction_work(str(tmp_path), TINY)()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        start_up.python_work(["-c", "1 / 0"], "cpu")()


@pytest.mark.parametrize("part", sorted(set(PARTS) - {"loader"}))
def test_each_part_has_benchmarks(part, tmp_path):
    """Described, not run; ours is in each, and its setups can be sent to another process."""
    options = Options(size_hw=(96, 128), rois=8, proposals=8, batches=(1, 2), precision="fp32", processes=2)
    found = list(benchmarks(part, options, tmp_path))
    assert found and len({benchmark.title for benchmark in found}) == len(found)
    assert all(any(name.startswith("ours") for name in benchmark.implementations) for benchmark in found)
    if part in ("detector", "profile"):
        assert sorted({benchmark.images for benchmark in found}) == [1, 2]


def test_the_command_prints_and_writes(tmp_path, capsys):
    assert run(main, ["loader", "--rounds", "1", "--json", str(tmp_path / "b.json")]) == 0
    written = json.loads((tmp_path / "b.json").read_text())
    (measured,) = written["benchmarks"]
    assert measured["results"]["ours"]["median_seconds"] > 0 and measured["results"]["ours"]["images_per_second"] > 1
    assert written["commit"] and "torchvision" in written["versions"] and "images/s" in capsys.readouterr().out


def test_profiles_shares_and_figures_are_shown():
    profile = Result([0.5], numbers={"spans": {"trunk": 0.2}, "synchronisations": {"rpn.py:9": 3}})
    results = {"ours bf16": profile, "matrix product bf16": Result([1.0], gigaflops=100)}
    profile.gigaflops = 20
    benchmark = Benchmark("all of it", {}, summarize=lambda results: {"seconds added": 1.25})
    console = Console(width=100, record=True, highlight=False)
    show([to_dict("profile", benchmark, results)], console)
    shown = console.export_text()
    for row in (
        "profile: all of it",
        r"ours bf16 +│ +0.5000 │ +40.0 │ +40% │",
        r"trunk +│ +0.2000 .* 40% │",
        r"waits at rpn.py:9 +│ 3 times",
        "seconds added: 1.25",
    ):
        assert re.search(row, shown), f"{row} is not in\n{shown}"
    assert "images/s" not in shown and "peak MB" not in shown  # nothing to show there


def as_file(*measured, date="2026-01-02"):
    heading = {
        "kind": "benchmark",
        "title": "All",
        "hardware": "2 threads",
        "versions": "torch 9",
        "date": date,
        "commit": "abc",
    }
    return heading | {"commands": ["tools/benchmark.py"], "benchmarks": json.loads(json.dumps(measured))}


def test_the_page_has_a_table_per_benchmark_and_the_newest_file_first(tmp_path):
    results = {
        "torchvision bf16": Result([1.0], 200, gigaflops=50, images=1),
        "ours bf16": Result([0.5], 100, gigaflops=40, images=1, numbers={"spans": {"trunk": 0.2}}),
        "matrix product bf16": Result([1.0], 10, gigaflops=100),
    }
    new = as_file(to_dict("detector", Benchmark("training", {}, summarize=lambda results: {"seconds added": 1.25}), results))
    (tmp_path / "a.json").write_text(json.dumps(as_file(date="2026-01-01")))
    (tmp_path / "b.json").write_text(json.dumps(new))
    (tmp_path / "c.json").write_text(json.dumps({"title": "other", "measures": {}}))
    lines = benchmark_page.body(benchmark_page.read(tmp_path)).splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## b", "## a"]
    assert "| ours bf16 | 0.5 s | 2.0 | 100 | 80.0 | 80% | torchvision bf16: 2.00x | torchvision bf16: 0.50x |" in lines
    assert {"**training**", "| trunk | 0.2 s | 40% |", "- seconds added: 1.25", "- versions: torch 9", "- commit: abc"} <= set(
        lines
    )
    assert "Nothing was measured yet." in benchmark_page.body({})


def test_the_page_shows_the_cost_in_a_picture(tmp_path):
    def costs(benchmark):
        amount = benchmark.settings["height"] * benchmark.settings["rois"] * benchmark.settings["batch"]
        return {name: Result([amount / 1e5], amount / 1e3, images=benchmark.images) for name in benchmark.implementations}

    measured = [to_dict("cost", benchmark, costs(benchmark)) for benchmark in cost.benchmarks(Options(), Path())]
    result = as_file(*measured)
    text = benchmark_page.body({"cpu": result})
    assert "| 600x800 | 512 | 1 | 3.072 s | 307 | 3.072 s | 307 |" in text and "](images/cost_cpu.svg)" in text
    assert list(benchmark_page.pictures({"cpu": result, "other": as_file()})) == ["cost_cpu.svg"]
    drawn = []
    for name in ("one.svg", "two.svg"):
        benchmark_page.draw(result, tmp_path / name)
        drawn.append((tmp_path / name).read_text())
    assert drawn[0] == drawn[1] and drawn[0].count("seconds (solid)") == 3


def test_batches_are_a_list():
    assert batch_sizes("1,8,16") == (1, 8, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sped"], "unknown part 'sped'"),
        (["--size", "600"], "--size must be HEIGHTxWIDTH"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["scaling", "--processes", "1"], "--processes must be at least 2, got 1"),
        (["--batch", "1,x"], "--batch must be numbers of at least 1 with commas between, got '1,x'"),
        (["--precision", "fp16"], "--precision must be fp32 or bf16, got 'fp16'"),
        (["--device", "gpu"], "--device must be cpu or cuda, got 'gpu'"),
        (["--device", "cuda:99"], "--device cuda:99: torch sees"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert run(main, arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("implementation", [our_work, torchvision_work, profiled_work])
@pytest.mark.parametrize("who", [pytest.param("cuda", marks=on_gpu)])
def test_implementations_compute_on_a_gpu(implementation, mode, who):
    case = replace(TINY, mode=mode, precision="bf16", device=who)
    benchmark = Benchmark("gpu", {"ours": partial(implementation, case)}, images=1)
    (result,) = run_benchmark(benchmark, rounds=1, device=who).values()
    assert result.median > 0 and result.peak_mb > 1 and result.gigaflops > 0


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_a_training_step_waits_for_the_gpu_only_at_known_places(device):
    """Numbers that only the data decide, and NMS; nothing of the loop's own."""
    case = replace(TINY, device=device)
    model = our_detector(case)
    work = our_training(model, model, case)
    work()
    known = {"fixed_sizes.py", "levels.py", "nms.py", "_ops.py"}
    assert {place.split(":")[0] for place in synchronisations(work)} <= known
