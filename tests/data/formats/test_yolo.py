"""YOLO folders: every layout means the same boxes, every kind of line is read or refused by its file and number."""

from collections.abc import Callable
from pathlib import Path

import pytest

from detection.config import DataConfig, FolderSource
from detection.data.catalog import load_split
from detection.data.formats.listing import list_folder
from detection.data.formats.yolo import find
from detection.errors import DatasetError
from tests.data.formats.folders import TRAIN, VAL, expect_pictures, read, write_images, write_text, write_yolo
from tests.data.pictures import PICTURES

ROUNDING = 1e-4  # px: of six digits
NAMES = "names: [cat, dog]\n"


def parallel(root: Path) -> None:
    """ultralytics: images/train, labels/train, and a data.yaml."""
    write_yolo(root / "images/train", root / "labels/train", TRAIN)
    write_yolo(root / "images/val", root / "labels/val", VAL)
    write_text(root / "data.yaml", f"path: /home/bob/pets\ntrain: images/train\nval: images/val\ntest:\nnc: 2\n{NAMES}")


def roboflow(root: Path) -> None:
    """Roboflow: train/images, train/labels, and paths that begin one folder too high."""
    write_yolo(root / "train/images", root / "train/labels", TRAIN)
    write_yolo(root / "valid/images", root / "valid/labels", VAL)
    splits = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
    write_text(root / "data.yaml", f"{splits}nc: 2\nnames: ['cat', 'dog']\n\nroboflow:\n  version: 1\n")
    write_text(root / "README.roboflow.txt", "pets - v1\n")


def colab(root: Path) -> None:
    """Whole paths of another machine, names by their ids."""
    roboflow(root)
    yaml = "train: /content/pets/train/images\nval: [C:\\Users\\x\\pets\\valid\\images]\nnames: {0: cat, 1: dog}\n"
    write_text(root / "data.yaml", yaml)


def inner_yaml(root: Path) -> None:
    """A data.yaml in a folder of its own."""
    parallel(root)
    (root / "data.yaml").unlink()
    write_text(root / "yaml/pets.yaml", f"train: ../images/train\nval: ../images/val\n{NAMES}")


def lists(root: Path) -> None:
    """Lists of images, and all images in one folder."""
    write_yolo(root / "images", root / "labels")
    write_text(root / "train.txt", "".join(f"./images/{picture.stem}.jpg\n" for picture in TRAIN))
    write_text(root / "val.txt", "".join(f"/home/bob/pets/images/{picture.stem}.jpg\r\n" for picture in VAL))
    write_text(root / "data.yaml", f"path: .\ntrain: train.txt\nval: val.txt\n{NAMES}")


def darknet(root: Path) -> None:
    """CVAT's "YOLO 1.1": obj.data, lists, labels beside the images."""
    write_yolo(root / "obj_train_data", root / "obj_train_data")
    write_text(
        root / "obj.data",
        "classes = 2\ntrain = data/train.txt\nvalid = data/val.txt\nnames = data/obj.names\nbackup = backup/\n",
    )
    write_text(root / "obj.names", "cat\ndog\n")
    write_text(root / "train.txt", "".join(f"data/obj_train_data/{picture.stem}.jpg\n" for picture in TRAIN))
    write_text(root / "val.txt", "".join(f"data/obj_train_data/{picture.stem}.jpg\n" for picture in VAL))


def lists_alone(root: Path) -> None:
    darknet(root)
    (root / "obj.data").unlink()


def labels_of_splits(root: Path) -> None:
    """Folders of splits, and of labels inside of them; names in each, as Roboflow's for darknet."""
    for folder, pictures in (("training", TRAIN), ("validation", VAL)):
        write_yolo(root / folder, root / folder / "labels", pictures)
        write_text(root / folder / "_darknet.labels", "cat\ndog")


def labels_above(root: Path) -> None:
    """A folder of labels with folders as those beside it."""
    write_yolo(root / "train2017", root / "labels/train2017", TRAIN)
    write_yolo(root / "val2017", root / "labels/val2017", VAL)
    write_text(root / "classes.txt", "\ufeffcat\r\ndog\r\n")


LAYOUTS = [parallel, roboflow, colab, inner_yaml, lists, darknet, lists_alone, labels_of_splits, labels_above]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_with_splits_means_the_same(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    for split, pictures in [("train", TRAIN), ("val", VAL), ("valid", VAL)]:
        expect_pictures(read(tmp_path, "yolo", split=split)[0], pictures, ROUNDING)
    records, faults = read(tmp_path, "yolo")
    expect_pictures(records, PICTURES, ROUNDING)
    assert not faults.notes
    assert all(not str(record.image_id).startswith("/") for record in records)
    with pytest.raises(DatasetError, match="test"):
        read(tmp_path, "yolo", split="test")
    sources = find(list_folder(tmp_path))
    assert [(source.root, source.split) for source in sources] == ([(tmp_path, "train"), (tmp_path, "val")])


def test_labels_beside_the_images_as_labelimg_writes_them(tmp_path: Path) -> None:
    write_yolo(tmp_path, tmp_path)
    write_text(tmp_path / "classes.txt", "cat\ndog\n")
    records, faults = read(tmp_path, "yolo")
    expect_pictures(records, PICTURES, ROUNDING)
    assert [record.image_id for record in records] == [f"{picture.stem}.jpg" for picture in PICTURES]
    assert not faults.notes and not faults.information
    assert find(list_folder(tmp_path)) == [FolderSource(format="yolo", root=tmp_path)]


def test_the_data_file_may_be_the_root(tmp_path: Path) -> None:
    roboflow(tmp_path)
    write_text(tmp_path / "other.yaml", "train: valid/images\nnames: [cat, dog]\n")
    expect_pictures(read(tmp_path / "other.yaml", "yolo")[0], VAL, ROUNDING)
    expect_pictures(read(tmp_path, "yolo", annotations="other.yaml")[0], VAL, ROUNDING)


def test_folders_may_be_told(tmp_path: Path) -> None:
    write_yolo(tmp_path / "a/pictures", tmp_path / "b/c", TRAIN)
    write_yolo(tmp_path / "more", tmp_path / "more", VAL)
    write_text(tmp_path / "classes.txt", "cat\ndog\n")
    expect_pictures(read(tmp_path, "yolo", images="a/pictures", annotations="b/c")[0], TRAIN, ROUNDING)
    with pytest.raises(DatasetError, match="there is no folder .*none: 'annotations' must name one, or a data.yaml"):
        read(tmp_path, "yolo", annotations="none")


def test_without_names_classes_are_called_by_their_ids(tmp_path: Path) -> None:
    write_yolo(tmp_path / "images", tmp_path / "labels")
    records, faults = read(tmp_path, "yolo", classes=("1", "0"))
    assert records[0].labels.tolist() == [1, 0]
    with pytest.raises(DatasetError, match=r"line 1 \(neither a data.yaml nor a classes.txt names .*\): unknown class"):
        read(tmp_path, "yolo")
    assert any(
        "has no names of classes (data.yaml, classes.txt): they are called by their ids" in each for each in faults.information
    )


def test_the_root_may_be_the_folder_of_the_images(tmp_path: Path) -> None:
    write_yolo(tmp_path / "images", tmp_path / "labels")
    expect_pictures(read(tmp_path / "images", "yolo", classes=("0", "1"))[0], PICTURES, ROUNDING)


def one(root: Path, text: str, yaml: str = NAMES) -> tuple[list[list[float]], list[str], list[str]]:
    """The boxes of a 64 x 48 image with this label file, rounded, the kinds of its faults, and what is told."""
    write_yolo(root / "images", root / "labels", PICTURES[2:])
    write_text(root / "data.yaml", yaml)
    (root / "labels/000003.txt").write_bytes(text.encode())
    records, faults = read(root, "yolo")
    boxes = [[round(value, 3) for value in box] for box in records[0].boxes.tolist()]
    return boxes, [note.kind for note in faults.notes], faults.information


BOX = [16, 12, 48, 36]  # the middle of the image, half as wide and high


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.5 0.5",
        "\ufeff0 0.5 0.5 0.5 0.5\r\n\r\n",
        "# a comment\n0 0.5 0.5 0.5 0.5 # another",
        "0,0.5,0.5,0.5,0.5",
        "0, .5, 0.50, 5e-1, +0.5",
        "\t0\t0.5 0.5  0.5 0.5   ",
        "0.0 0.5 0.5 0.5 0.5",
        "0 0.5 0.5 0.5 0.5 0.93",
        "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75",
        "0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5",
        "0 0.25 0.25 0.75 0.5 0.5 0.75",
    ],
)
def test_every_way_to_write_a_line_is_the_same_box(tmp_path: Path, line: str) -> None:
    boxes, kinds, _ = one(tmp_path, line)
    assert boxes == [BOX] and not kinds


def test_key_points_are_left_out_where_the_data_file_tells_of_them(tmp_path: Path) -> None:
    line = "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.9 0.9 1"
    boxes, kinds, told = one(tmp_path, line, f"kpt_shape: [2, 3]\n{NAMES}")
    assert boxes == [BOX] and not kinds and any("1 lines have key points, which are left out" in each for each in told)
    assert one(tmp_path, line.replace(" 2 ", " ").removesuffix(" 1"), f"kpt_shape: [2, 2]\n{NAMES}")[0] == [BOX]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.5 0.5 0.9", "1 lines have a sixth number, a score, which is left out"),
        ("0 .2 .2 .2 .4 .4 .4 .4 .2", "1 lines are polygons or turned boxes: their boxes are those around them"),
    ],
)
def test_what_is_no_plain_box_is_told(tmp_path: Path, line: str, told: str) -> None:
    assert any(told in each for each in one(tmp_path, line)[2])


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.5", "line that is neither a box nor a polygon, dropped"),
        ("0", "line that is neither a box nor a polygon, dropped"),
        ("0 .1 .1 .2 .2 .3 .3 .9", "line that is neither a box nor a polygon, dropped"),
        ("0 0.5 0.5 nan 0.5", "text for a number, dropped"),
        ("0 0.5 0.5 0x1 0.5", "text for a number, dropped"),
        ("0 0.5 0.5 0 0.5", "box without area, dropped"),
        ("0 0.5 0.5 -0.1 0.5", "inverted box, dropped"),
        ("0 1.5 0.5 0.2 0.2", "box outside the image, dropped"),
        ("0 0.9 0.5 0.4 0.5", "box reaching out of the image, clipped"),
    ],
)
def test_faulty_lines(tmp_path: Path, line: str, kind: str) -> None:
    boxes, kinds, _ = one(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    assert kinds == [kind] and boxes[0] == BOX and len(boxes) == (2 if "clipped" in kind else 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", r"there is no class 2: the names of 2 classes are 'cat', 'dog'$"),
        ("-1 0.5 0.5 0.5 0.5", r"the first number of a line is the id of a class, 0, 1, ..., found '-1'"),
        ("0.5 0.5 0.5 0.5 0.5", "found '0.5'"),
        ("cat 0.5 0.5 0.5 0.5", "found 'cat'"),
        ("1e99 0.5 0.5 0.5 0.5", "there is no class"),
        ("0 320 240 64 48", r"'320 240 64 48' are no fractions of the image's width and height, but pixels\?"),
        ("0 10 20 30 20 30 60", "no fractions"),
    ],
)
def test_refused_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DatasetError, match=rf"labels/000003\.txt, line 2: .*{message}"):
        one(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")


def test_a_data_file_that_leads_nowhere_at_all_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path / "images", tmp_path / "labels")
    write_text(tmp_path / "data.yaml", f"train: images/train\nval: images/val\n{NAMES}")
    with pytest.raises(DatasetError, match=r"data\.yaml: 'train' leads nowhere: 'images/train'; folders with images: 'images'"):
        read(tmp_path, "yolo")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("nc: 3\nnames: [cat, dog]\n", "nc is 3, but 'names' has 2: make them agree"),
        ("names: [cat, '']\n", "the name of class 1 is empty"),
        ("names: {cat: 0, dog: 1}\n", "'names' has the id 'cat', which is no whole number"),
        ("names: cat\n", "'names' must be a list or a mapping of ids, found 'cat'"),
        ("names: [cat, dog\ntrain: x", r"data.yaml is not valid YAML, line \d"),
        ("[1, 2]", "data.yaml must hold keys"),
        ("names: [a\x01]", "data.yaml is not valid YAML: special characters are not allowed"),
        ("train: {a: b}\nnames: [cat]", "'train' must be a path or a list of paths"),
        (f"train: nowhere/at/all\n{NAMES}", "'train' leads nowhere: 'nowhere/at/all'; folders with images: 'images'"),
        (f"val: images\n{NAMES}", "has no 'train'; it has val"),
        ("names: " + "[" * 5000, "is not valid YAML"),
    ],
)
def test_data_files_that_cannot_be_used(tmp_path: Path, yaml: str, message: str) -> None:
    write_yolo(tmp_path / "images", tmp_path / "labels")
    write_text(tmp_path / "data.yaml", yaml)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, "yolo", split="train")


def test_names_are_text_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    write_yolo(tmp_path / "images", tmp_path / "labels")
    write_text(tmp_path / "data.yaml", "names: [no, 1.50]\n")
    assert read(tmp_path, "yolo", classes=("no", "1.50"))[0][0].labels.tolist() == [0, 1]


def test_several_data_files_or_names_that_differ_are_refused(tmp_path: Path) -> None:
    roboflow(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "one.yaml")
    write_text(tmp_path / "two.yaml", NAMES)
    with pytest.raises(DatasetError, match="holds 'one.yaml', 'two.yaml': set 'annotations' of the source to the one"):
        read(tmp_path, "yolo")
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).unlink()
    write_text(tmp_path / "train/labels/classes.txt", "cat\ndog\n")
    write_text(tmp_path / "valid/labels/classes.txt", "dog\ncat\n")
    with pytest.raises(DatasetError, match=r"classes\.txt and .*classes\.txt name other classes"):
        read(tmp_path, "yolo")


def test_images_without_labels_are_background_and_labels_without_images_are_missing_images(tmp_path: Path) -> None:
    roboflow(tmp_path)
    (tmp_path / "train/labels/000002.txt").unlink()
    records, faults = read(tmp_path, "yolo", split="train")
    assert [len(record.labels) for record in records] == [2, 0]
    assert any("1 images have no label file, and are taken as images without objects" in each for each in faults.information)
    (tmp_path / "train/images/000001.jpg").unlink()
    with pytest.raises(DatasetError, match=r"none of 1 images has a label file; of .*2.jpg it would be .*labels/000002.txt"):
        read(tmp_path, "yolo", split="train")
    (tmp_path / "valid/images/000004.jpg").unlink()
    with pytest.raises(DatasetError, match=r"valid/labels/000004.txt labels an image that does not exist"):
        read(tmp_path, "yolo", split="val")
    source = FolderSource(format="yolo", root=tmp_path, split="val")
    dataset = load_split(DataConfig(classes=("cat", "dog"), train=(source,), on_missing_image="skip"), "train")
    assert len(dataset.records) == 1 and "000004.txt labels an image that does not" in dataset.faults[0]


def test_images_of_lists_are_found_or_missing_by_line(tmp_path: Path) -> None:
    lists(tmp_path)
    write_text(tmp_path / "train.txt", "images/000001.jpg\nimages/none.jpg\n")
    with pytest.raises(DatasetError, match=r"train\.txt, line 2 lists an image that does not exist: 'images/none.jpg'"):
        read(tmp_path, "yolo", split="train")


def test_an_empty_folder_and_other_text_are_no_yolo(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no image; folders with images: none"):
        read(tmp_path, "yolo")
    write_images(tmp_path)
    write_text(tmp_path / "000001.txt", "a description of the picture\n")
    write_text(tmp_path / "000002.txt", "7 years old\n")
    assert find(list_folder(tmp_path)) == []
