"""`resdet split`: the file, the table, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from detection.cli.main import main
from detection.config import load_config
from detection.data.catalog import load_split
from detection.data.settle import settle_config
from tests.data.pictures import Picture, Thing, write_coco

PICTURES = [Picture(number, (40, 60), (Thing(("cat", "dog")[number % 2], (1, 1, 20, 20)),)) for number in range(1, 21)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_coco(tmp_path, PICTURES)
    source = f"{{format: coco, root: {tmp_path}, annotations: instances.json, images: images}}"
    (tmp_path / "mine.yaml").write_text(f"data:\n  classes: auto\n  train: [{source}]\n")
    return tmp_path / "mine.yaml"


def rows(printed: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in printed.splitlines()]
    return {first: rest for first, *rest in cells if rest}


def test_three_parts(config, tmp_path, capsys):
    command = [
        "split",
        str(config),
        "--output",
        str(tmp_path / "out/split.json"),
        "--fraction",
        "0.2",
        "--test-fraction",
        "0.1",
    ]
    assert main([*command, "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert rows(printed)["images"] == ["14", "4", "2"] and rows(printed)["cat"] == ["7", "2", "1"]
    content = json.loads((tmp_path / "out/split.json").read_text())
    assert content["asked"] == {"fraction": 0.2, "seed": 5, "group_by": None}
    assert sorted(content["train"] + content["val"] + content["test"]) == list(range(1, 21))
    config.write_text(config.read_text() + f"  val: {{file: {tmp_path}/out/split.json}}\n")
    data = settle_config(load_config(config)).data
    assert [record.image_id for record in load_split(data, "val").records] == content["val"]


def test_only_splits_are_replaced(config, tmp_path, capsys):
    before = (tmp_path / "instances.json").read_bytes()
    assert main(["split", str(config), "--output", str(tmp_path / "instances.json")]) == 2
    assert "would replace" in capsys.readouterr().err and (tmp_path / "instances.json").read_bytes() == before


def test_the_configs_own_wishes_count_and_options_more(config, tmp_path, capsys):
    wishes = "data.val={fraction: 0.5, group_by: '^00000'}"
    assert main(["split", str(config), "--output", str(tmp_path / "split.json"), wishes]) == 0
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["asked"]["group_by"] == "^00000" and {len({*content["train"]} & {*range(1, 10)})} <= {0, 9}
    assert main(["split", str(config), "--output", str(tmp_path / "split.json"), "--fraction", "0.1", wishes]) == 0
    assert json.loads((tmp_path / "split.json").read_text())["asked"]["fraction"] == 0.1


@pytest.mark.parametrize("name", ["split.xml", "split.txt", "split"])
def test_a_split_is_never_taken_for_labels(config, tmp_path, capsys, name):
    assert main(["split", str(config), "--output", str(tmp_path / name)]) == 2
    assert "name it split.json" in capsys.readouterr().err and not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--fraction", "0.6", "--test-fraction", "0.4"], "leave nothing to train on"),
        (["--fraction", "0"], "fraction"),
        (["--group-by", "("], "no regular expression"),
        (["--group-by", "^0"], "20 images in 1 groups that stay together cannot be"),
        (["data.train=[]"], r"set data\.train"),
    ],
)
def test_refused(config, tmp_path, capsys, options, fault):
    assert main(["split", str(config), "--output", str(tmp_path / "split.json"), *options]) == 2
    assert re.search(fault, capsys.readouterr().err) and not (tmp_path / "split.json").exists()
