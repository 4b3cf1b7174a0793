"""tools/ablation.py: the table's rows, its JSON, rows that cannot be measured, mistakes."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detection import load_detector
from detection.cli.main import main
from docs.generate import results_page
from tests.cli.trained import write_checkpoint, write_trained
from tests.evaluation.scenes import make_record, write_devkit

METRIC_KEYS = {"AP", "AP50", "AP75", "voc_area"}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """`best.pt` without context, `context0.pt` and `context1.pt` with it; what there is to find is what two of them find."""
    folder = write_trained(tmp_path)
    for seed in (0, 1):
        write_checkpoint(folder / f"context{seed}.pt", folder / "config.yaml", ["roi.context=true"], seed)
    finders = [load_detector(folder / name) for name in ("best.pt", "context0.pt")]
    records = []
    shutil.rmtree(folder / "data")
    pictures = folder / "data/JPEGImages"
    pictures.mkdir(parents=True)
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        cv2.imwrite(str(pictures / f"im{number}.png"), picture)
        found = [finder.predict([picture[:, :, ::-1].copy()])[0][number : number + 4] for finder in finders]
        boxes, labels = (torch.cat([getattr(each, key) for each in found]).round().tolist() for key in ("boxes", "labels"))
        records.append(make_record(f"im{number}", boxes, labels))
    write_devkit(folder / "data", records, ["cat", "dog"])
    return folder


def ablation(folder: Path, *names: str) -> list[str]:
    files = [str(folder / name) for name in names]
    return ["ablation", "--timed-images", "1", "--json", str(folder / "out.json"), "--weights", *files]


def evaluated(folder: Path, *names: str, settings: tuple[str, ...] = ()) -> dict[str, float]:
    """The metrics that the commands for either standard write."""
    model = ["--weights", *(str(folder / name) for name in names), *settings]
    assert main(["eval-coco", *model, "--json", str(folder / "coco.json")]) == 0
    assert main(["eval-voc", *model, "--metric", "area", "--json", str(folder / "voc.json")]) == 0
    coco, voc = (json.loads((folder / name).read_text()) for name in ("coco.json", "voc.json"))
    return {**{key: coco[key] for key in ("AP", "AP50", "AP75")}, "voc_area": voc["mAP"]}


def test_rows_and_their_metrics(trained, capsys):
    scales = "test.scales=[48, 64]"
    assert main([*ablation(trained, "context0.pt", "best.pt", "context1.pt"), scales, "test.flip=true"]) == 0
    shown = capsys.readouterr().out
    out = json.loads((trained / "out.json").read_text())
    assert [row["name"] for row in out["rows"]] == [
        "baseline",
        "+ box refinement",
        "+ context",
        "+ multi-scale testing",
        "+ ensemble",
        "+ flip, one network",
    ]
    assert [len(row["weights"]) for row in out["rows"]] == [1, 1, 1, 1, 2, 1]
    assert out["kind"] == "ablation" and out["images"] == 3 and out["scales"] == [48, 64] and out["left_out"] == []
    assert {"title", "hardware", "date", "commit"} <= set(out) and "tools/ablation.py --timed-images" in out["commands"][0]
    for row in out["rows"]:
        assert set(row) >= METRIC_KEYS and row["seconds_per_image"] > 0 and row["name"] in shown
    assert out["rows"][0]["relative_cost"] == 1
    refined = ("test.refinement_passes=1", "test.voting=true")
    ensemble = out["rows"][4]
    for row, expected in [
        (out["rows"][0], evaluated(trained, "best.pt")),
        (out["rows"][3], evaluated(trained, "context0.pt", settings=(*refined, scales))),
        (ensemble, evaluated(trained, "context0.pt", "context1.pt", settings=(*refined, scales))),
        (ensemble["members"][1], evaluated(trained, "context1.pt", settings=(*refined, scales))),
    ]:
        assert {key: row[key] for key in METRIC_KEYS} == pytest.approx(expected, abs=6e-5)
    assert ensemble["members"][0]["AP"] == out["rows"][3]["AP"]
    assert ensemble["members_mean"]["AP50"] == pytest.approx(sum(each["AP50"] for each in ensemble["members"]) / 2, abs=6e-5)
    assert "mean of members" in shown


def test_the_file_becomes_a_table_of_the_results_page(trained):
    assert main([*ablation(trained, "best.pt", "context0.pt", "context1.pt"), "test.scales=[64]"]) == 0
    out = json.loads((trained / "out.json").read_text())
    (trained / "results").mkdir()
    (trained / "results/cells.json").write_text(
        json.dumps(out | {"notes": ["on random numbers"], "left_out": ["+ luck: none"]})
    )
    lines = results_page(trained / "results").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert "## cells" in lines and len(table) == 2 + 5 + 2 + 1  # the head, the rows, both members, their mean
    assert {line.count("|") for line in table} == {8}
    first = out["rows"][0]
    expected = f"| baseline | {first['AP']:.3f} | {first['AP50']:.3f} | {first['AP75']:.3f} | {first['voc_area']:.3f} |"
    assert table[2].startswith(expected) and table[2].endswith("| 1.00 |")
    assert any(line.startswith("- baseline; + box refinement: `") and line.endswith("best.pt`") for line in lines)
    assert {"- on random numbers", "- left out: + luck: none", "- scales of multi-scale testing: 64"} <= set(lines)


def test_rows_that_no_checkpoint_allows_are_left_out_and_said(trained, capsys):
    assert main(["ablation", "--config", str(trained / "config.yaml"), "--json", str(trained / "out.json")]) == 0
    shown = capsys.readouterr().out
    assert "left out: + context: no checkpoint was trained with roi.context=true" in shown
    assert "left out: + ensemble: there is only one checkpoint without context" in shown
    out = json.loads((trained / "out.json").read_text())
    assert [row["name"] for row in out["rows"]] == ["baseline", "+ box refinement", "+ multi-scale testing"]
    # The paper's scales, in proportion to shorter_side 64.
    assert out["scales"] == out["rows"][2]["settings"]["scales"] == [21, 43, 64, 85, 107]
    assert out["rows"][0]["settings"] == {} and out["rows"][1]["settings"] == {"refinement_passes": 1, "voting": True}


def test_a_config_gives_its_images_to_networks_of_either_kind(trained):
    config = ["--config", str(trained / "config.yaml"), "test.scales=[64]"]
    assert main([*ablation(trained, "best.pt", "context1.pt"), *config]) == 0
    assert len(json.loads((trained / "out.json").read_text())["rows"]) == 4


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (["context0.pt"], [], "the baseline needs a checkpoint trained without context"),
        (["best.pt"], ["--timed-images", "0"], "--timed-images must be at least 1, got 0"),
        (["best.pt"], ["test.scales=[64, 48]"], "test.scales must ascend"),
        (["best.pt"], ["data.test.0.annotated=false"], "split 'test' has no annotations"),
        (["best.pt"], ["data.test=[]"], "set data.test or data.val"),
        (["best.pt", "other.pt"], [], "other.pt has other classes"),
        (["best.pt", "no.pt"], [], "no.pt"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(trained, names, more, message, capsys):
    if "other.pt" in names:
        write_checkpoint(trained / "other.pt", trained / "config.yaml", ["data.classes=[cat, cow]"], 0)
    assert main([*ablation(trained, *names), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (trained / "out.json").exists()
