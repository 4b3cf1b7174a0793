"""`resdet check-dataset`: all faults at once, exit codes, statistics and sheets."""

import pytest
import yaml
from rich.table import Table

from detection.cli.main import main
from detection.data.images import read_image
from detection.terminal import new_console
from tests.data.pictures import CLASSES, coco_content, write_coco, write_devkit


@pytest.fixture
def check(tmp_path, capsys):
    """Run the command on the devkit (train) and the COCO file (val) of `tmp_path`."""

    def run(*overrides, **data):
        values = {
            "classes": list(CLASSES),
            "workers": 0,
            "train": [{"format": "voc", "root": str(tmp_path), "year": 2007, "split": "trainval"}],
            "val": [{"format": "coco", "root": str(tmp_path), "annotations": "instances.json", "images": "images"}],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": values | data}))
        command = ["check-dataset", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "out"), *overrides]
        code = main(command)
        return code, *capsys.readouterr()

    write_devkit(tmp_path)
    write_coco(tmp_path)
    return run


def test_clean(check, tmp_path):
    code, out, err = check()
    assert code == 0 and err == ""
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in out.splitlines() if line.startswith("│")}
    table = {name: [int(cell) for cell in cells] for name, cells in rows.items()}
    assert table["images"] == [4, 4] and table["landscape or square"] == [3, 3] and table["without objects"] == [1, 1]
    assert table["objects"] == [5, 5] and table["difficult"] == [1, 0]
    assert table["crowd"] == [0, 1] and table["faults refused"] == table["faults repaired"] == [0, 0]
    assert table["cat"] == [3, 3] and table["dog"] == [2, 2]
    (line,) = (tmp_path / "out/faults.txt").read_text().splitlines()
    assert line.startswith("warning: 4 images of val show the same as 4 of train")
    assert "the config's anchors: " in out and "report: " in out
    page = (tmp_path / "out/report.html").read_text()
    assert page.rstrip().endswith("</html>") and page.count("4 images of val show the same as 4 of train") == 1
    for name in ("train.jpg", "val.jpg"):
        height, width = read_image(tmp_path / "out" / name).shape[:2]
        assert height < 200 and width > 200, "four small pictures in one row"


def test_all_faults_at_once(check, tmp_path):
    folder = tmp_path / "VOC2007"
    first, second = (folder / "Annotations" / f"00000{number}.xml" for number in (1, 2))
    first.write_text(first.read_text().replace("<name>cat", "<name>cta").replace("<xmax>55<", "<xmax>99<"))
    second.write_text("<annotation>")
    third = folder / "JPEGImages/000003.jpg"
    third.write_bytes(third.read_bytes()[:-400])
    (folder / "JPEGImages/000004.jpg").unlink()
    content = coco_content()
    content["images"][2]["width"] = 99
    content["annotations"][0]["image_id"] = 77
    content["annotations"][1]["category_id"] = 78
    content["annotations"][2]["bbox"] = [1, 2, -3, 4]
    write_coco(tmp_path, content=content)
    code, out, err = check()
    report = (tmp_path / "out/faults.txt").read_text()
    assert code == 2 and err.startswith("error: 7 faults that training refuses") and len(err.splitlines()) == 1
    for text in (report, out):
        for expected in (
            "000001.xml, object 1: unknown class 'cta'; did you mean 'cat'",
            "000002.xml is not well-formed",
            "000003.jpg is damaged or cut short",
            "no image of '000004'",
            "refer to none of its images; the first: annotation 1 has image_id 77",
            "refer to none of its categories; the first: annotation 2 has category_id 78",
            "000003.jpg is 64x48 as displayed, but its annotation says 99x48",
            "box 36.5 11 99 39.25 in a 60x40 image: box reaching out of the image, clipped",
            "bbox [1, 2, -3, 4]: inverted box, dropped",
        ):
            assert expected in text


def test_repairs_alone_exit_0_and_strict_refuses_them(check, tmp_path):
    content = coco_content()
    content["annotations"][0]["bbox"][2] = 500
    write_coco(tmp_path, content=content)
    code, out, _ = check()
    assert code == 0 and "val: 1 x box reaching out of the image, clipped" in out
    code, _, err = check("data.strict=true")
    assert code == 2 and "1 fault that" in err


def test_skipped_images_are_no_errors(check, tmp_path):
    (tmp_path / "images/000001.jpg").write_bytes(b"")
    assert check()[0] == 2
    code, out, _ = check("data.on_bad_image=skip")
    assert code == 0 and "1 x image that cannot be used, skipped" in out


def test_warnings(check, tmp_path):
    train = {"format": "voc", "root": str(tmp_path), "year": 2007, "split": "trainval"}
    code, out, _ = check(val=[train], classes=["cat", "dog", "emu"])
    assert code == 0
    assert "warning: train: no object of emu" in out
    assert "warning: 4 images are in train and in val" in out


def test_missing_root_is_reported_with_the_rest(check, tmp_path):
    code, out, err = check(test=[{"format": "voc", "root": "nowhere", "split": "test"}])
    assert code == 2 and "there is no data set at nowhere nor at" in out and len(err.splitlines()) == 1


def test_no_data(check):
    code, _, err = check(train=[], val=[])
    assert code == 2 and "names no data" in err


def test_many_faults_are_cut_on_the_screen_only(check, tmp_path):
    content = coco_content()
    content["annotations"] = [{"id": number, "image_id": 1, "category_id": 3, "bbox": [0, 0, 0, 0]} for number in range(30)]
    write_coco(tmp_path, content=content)
    _, out, _ = check()
    assert out.count("box without area, dropped") == 11 and "20 more" in out
    assert (tmp_path / "out/faults.txt").read_text().count("box without area, dropped") == 30


def test_duplicates_and_objects_beyond_the_detections_are_warnings(check, tmp_path):
    content = coco_content()
    content["annotations"] += [{**content["annotations"][0], "id": 50 + number} for number in range(3)]
    write_coco(tmp_path, content=content)
    code, out, _ = check("test.max_detections=2")
    assert code == 0
    assert "warning: val: 3 objects in 1 images have the very box and class of another; the first: 3 in " in out
    assert "warning: val: 1 images have more objects than test.max_detections (2), up to 5: 3 of 7 objects cannot" in out


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_no_number_of_a_table_is_lost_in_a_narrow_pipe(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    table = Table("class", *["number"] * 5)
    table.add_row("cat", *["12345"] * 5)
    new_console().print(table)
    assert capsys.readouterr().out.count("12345") == 5
