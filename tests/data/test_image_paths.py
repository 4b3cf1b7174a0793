"""Paths as labellers write them: which file each leads to, what is said of it, and what is refused."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.data import image_paths
from detection.data.faults import Faults
from detection.data.formats.listing import FolderListing, list_folder
from detection.data.image_paths import ImageFinder, readings
from detection.errors import DatasetError, MissingImageError
from tests.data.formats.test_listing import make

COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", "épée.jpg"), unicodedata.normalize("NFD", "épée.jpg")


URL, BACKSLASH, PLACE = "written as URLs", "written with backslashes", "in another place than is named"
CASE, UNICODE, SUFFIX = "named in other case", "named in another Unicode form", "named with another suffix or none"
UPLOAD = "named with the prefix of an upload"


def found(root: Path, name: str, near: Path | None = None) -> tuple[str, set[str]]:
    """The file below the root, and the kinds of guesses that are told."""
    finder, faults = ImageFinder([root]), Faults()
    file = finder.find(name, "labels.json", near)
    finder.inform("labels.json", faults)
    told = {line.partition(" images are ")[2].partition(", e.g.")[0] for line in faults.information}
    return file.relative_to(root).as_posix(), told


@pytest.mark.parametrize(
    ("files", "name", "file", "told"),
    [
        (["a.jpg"], "a.jpg", "a.jpg", set()),
        (["images/a.jpg"], "./images/a.jpg", "images/a.jpg", set()),
        (["a b%20.jpg", "a b .jpg"], "a b%20.jpg", "a b%20.jpg", set()),
        (["images/a.jpg"], "images\\a.jpg", "images/a.jpg", {BACKSLASH}),
        (["a.jpg"], ".\\a.jpg", "a.jpg", {BACKSLASH}),
        (["images/a.jpg"], "C:\\Users\\x\\images\\a.jpg", "images/a.jpg", {BACKSLASH, PLACE}),
        (["images/a.jpg"], "\\\\server\\share\\a.jpg", "images/a.jpg", {BACKSLASH, PLACE}),
        (["images/a.jpg"], "/home/bob/set/images/a.jpg", "images/a.jpg", {PLACE}),
        (["images/a.jpg"], "a.jpg", "images/a.jpg", {PLACE}),
        (["images/a.jpg"], "images/images/a.jpg", "images/a.jpg", {PLACE}),
        (["images/images/a.jpg"], "images/a.jpg", "images/images/a.jpg", {PLACE}),
        (["train/a.jpg", "val/a.jpg"], "D:/set/val/a.jpg", "val/a.jpg", {PLACE}),
        (["a/x/1.jpg", "b/x/1.jpg", "b/y/1.jpg"], "/q/b/x/1.jpg", "b/x/1.jpg", {PLACE}),
        (["IMG_1.JPG"], "img_1.jpg", "IMG_1.JPG", {CASE}),
        (["Images/A.jpg"], "images/A.jpg", "Images/A.jpg", {CASE}),
        (["A.jpg", "a.jpg"], "x/a.jpg", "a.jpg", {PLACE}),
        ([COMPOSED], DECOMPOSED, COMPOSED, {UNICODE}),
        ([DECOMPOSED], COMPOSED, DECOMPOSED, {UNICODE}),
        ([DECOMPOSED], COMPOSED.upper(), DECOMPOSED, {CASE}),
        (["a.png"], "a.jpg", "a.png", {SUFFIX}),
        (["a.png"], "a", "a.png", {SUFFIX}),
        (["photo.1.png"], "photo.1", "photo.1.png", {SUFFIX}),
        (["a.jpg", "a.png"], "A.PNG", "a.png", {CASE}),
        (["my image.jpg"], "my%20image.jpg", "my image.jpg", {URL}),
        (["a#1 b.jpg"], "a#1%20b.jpg", "a#1 b.jpg", {URL}),
        (["i/my image.jpg"], "file:///C:/Users/x/i/my%20image.jpg", "i/my image.jpg", {URL, PLACE}),
        (["i/a.jpg"], "file:C:\\i\\a.jpg", "i/a.jpg", {URL, BACKSLASH, PLACE}),
        (["i/é.jpg"], "https://host/i/%C3%A9.jpg?size=3#top", "i/é.jpg", {URL, PLACE}),
        (["a.jpg"], "s3://bucket/a.jpg", "a.jpg", {URL, PLACE}),
        (["set/a b.jpg"], "/data/local-files/?d=set/a%20b.jpg", "set/a b.jpg", {URL}),
        (["set/a.jpg"], "/data/local-files/?d=set%5Ca.jpg", "set/a.jpg", {URL, BACKSLASH}),
        (["a.jpg"], "/data/upload/1/0a1b2c3d-a.jpg", "a.jpg", {PLACE, UPLOAD}),
        (["0a1b2c3d-a.jpg"], "/data/upload/1/0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg", {PLACE}),
        (["a.jpg", "a.jxl"], "x/a.tif", "a.jpg", {PLACE, SUFFIX}),
        (["a.jpg", ".a.jpg", "__MACOSX/a.jpg"], "x/a.jpg", "a.jpg", {PLACE}),
    ],
)  # fmt: skip
def test_a_path_leads_to_the_one_file_that_fits(tmp_path: Path, files: list[str], name: str, file: str, told: set[str]) -> None:
    make(tmp_path, *files)
    assert found(tmp_path, name) == (file, told)


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ([], "a.jpg", r"lists an image that does not exist: 'a.jpg' in .*, where no image is \(data.on_missing_image: skip"),
        (["photo1.jpg", "b.jpg"], "photos1.jpg", r"'photos1.jpg' in .*; 2 images are there, e.g. 'b.jpg'; did you mean 'ph"),
        (["b/1.jpg"], "", r"does not exist: '' in .*; 1 images are there"),
        (["b/1.jpg"], "x" * 10**6, r"does not exist: 'xxx"),
        (["b/1.jpg"], "a\0b", r"does not exist: 'a\\x00b'"),
        (["b/1.jpg"], "http://[a", "does not exist"),
        (["b/1.jpg"], "..", "does not exist"),
        (["b/1.jpg"], "b", "does not exist"),
        (["x/a.jpg", "y/a.jpg"], "a.jpg", r"labels.json: 'a.jpg' may be any of 2 images: .*a.jpg, .*a.jpg; name it w"),
        (["A.jpg", "a.JPG"], "a.jpg", "'a.jpg' may be any of 2 images"),
        (["a.png", "a.bmp"], "a.jpg", "'a.jpg' may be any of 2 images"),
        (["a.jxl"], "A.jxl", r"a.jxl is of a kind that is not read: convert it, e.g. to .jpg"),
    ],
)  # fmt: skip
def test_else_it_is_said_what_is_there(tmp_path: Path, files: list[str], name: str, message: str) -> None:
    make(tmp_path, *files)
    with pytest.raises(DatasetError, match=message):
        found(tmp_path, name)


def test_of_several_the_one_nearest_to_the_label_file_is_meant(tmp_path: Path) -> None:
    make(tmp_path, "train/images/a.jpg", "val/images/a.jpg", "val/b.jpg", "b.jpg")
    assert found(tmp_path, "a.jpg", tmp_path / "val/labels/a.xml") == ("val/images/a.jpg", set())
    assert found(tmp_path, "x/a.jpg", tmp_path / "val/labels/a.xml") == ("val/images/a.jpg", {PLACE})
    assert found(tmp_path, "b.jpg", tmp_path / "val/b.xml") == ("val/b.jpg", set())


def test_then_the_one_of_its_split_wherever_that_stands(tmp_path: Path) -> None:
    root = tmp_path / "test"  # says nothing of what is below it
    make(root, "images/train/a.jpg", "images/test/a.jpg", "labels/x")
    for label_file, split in (("labels/train/a.xml", "train"), ("test_labels.csv", "test"), ("lists/train.csv", "train")):
        assert found(root, "a.jpg", root / label_file) == (f"images/{split}/a.jpg", set())
    with pytest.raises(DatasetError, match="may be any of 2 images"):
        found(root, "a.jpg", root / "labels/a.xml")


def test_a_path_has_no_dots(tmp_path: Path) -> None:
    make(tmp_path, "images/a.jpg", "labels/x")
    assert ImageFinder([tmp_path]).find("../images/a.jpg", "x", tmp_path / "labels/a.json") == tmp_path / "images/a.jpg"
    assert ImageFinder([tmp_path / "labels"]).find("../images/a.jpg", "x") == tmp_path / "images/a.jpg"


def test_one_file_through_two_links_is_one(tmp_path: Path) -> None:
    make(tmp_path, "there/a.jpg", "data/x")
    (tmp_path / "data/one").symlink_to(tmp_path / "there")
    (tmp_path / "data/two").symlink_to(tmp_path / "there")
    assert found(tmp_path / "data", "a.jpg")[0] == "one/a.jpg"


def test_a_guess_may_not_take_the_file_of_another_image(tmp_path: Path) -> None:
    """As where the folder of one of two videos is missing, and the frames of both are numbered."""
    make(tmp_path, "video1/0001.jpg", "video1/0002.jpg")
    finder = ImageFinder([tmp_path])
    finder.find("video1/0001.jpg", "x")
    with pytest.raises(DatasetError, match=r"x: 'video2/0001.jpg' and 'video1/0001.jpg' both seem to be .*: is one missing\?"):
        finder.find("video2/0001.jpg", "x")
    finder.find("video2/0002.jpg", "x")
    with pytest.raises(DatasetError, match="both seem to be"):
        finder.find("video1/0002.jpg", "x")


def test_one_image_may_be_written_in_several_ways(tmp_path: Path) -> None:
    make(tmp_path, "i/a b.jpg")
    finder = ImageFinder([tmp_path])
    assert {finder.find(name, "x") for name in ["i/a b.jpg", "i\\a b.jpg", "i/a%20b.jpg", "I/A B.JPG"]} == {
        tmp_path / "i/a b.jpg"
    }


def test_each_kind_is_told_once_with_the_number_of_its_images(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number}.JPG" for number in range(4)))
    finder, faults = ImageFinder([tmp_path]), Faults()
    for name in ["0.jpg", "1.jpg", "i/2.jpg", "3.JPG", "0.jpg"]:
        finder.find(name, "x")
    finder.inform("labels.csv", faults)
    assert faults.information == [
        f"labels.csv: 3 images are named in other case, e.g. '0.jpg' is {tmp_path}/0.JPG",
        f"labels.csv: 1 images are in another place than is named, e.g. 'i/2.jpg' is {tmp_path}/2.JPG",
    ]


def test_the_tree_is_listed_once_and_only_where_a_path_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.jpg", "sub/b.jpg", "sub/c.jpg")
    listed: list[Path] = []

    def counted(folder: Path) -> FolderListing:
        listed.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(image_paths, "list_folder", counted)
    finder = ImageFinder([tmp_path])
    assert finder.look_up("a.jpg") and finder.look_up("sub/b.jpg") and not listed
    assert finder.look_up("c.jpg") and finder.look_up("d.jpg") is None and listed == [tmp_path]


def test_folders_are_asked_in_their_order(tmp_path: Path) -> None:
    make(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg")
    finder = ImageFinder([tmp_path / "two", tmp_path / "one"])
    assert finder.find("a.jpg", "x") == tmp_path / "two/a.jpg"
    assert finder.find("b.jpg", "x") == tmp_path / "two/b.jpg"
    with pytest.raises(MissingImageError, match=r"'c.jpg' in .*two or .*one; 3 images are there"):
        finder.find("c.jpg", "x")


PART = st.text(st.sampled_from("aAbB.%é\\ ?-0"), min_size=1, max_size=6).filter(lambda part: part.strip(".") != "")


@settings(max_examples=200, deadline=None)
@given(st.lists(PART, min_size=1, max_size=4))
def test_what_is_written_is_the_first_reading(parts: list[str]) -> None:
    name = "/".join(parts)
    assert readings(name)[0] == (name, frozenset())
    assert len({reading.path for reading in readings(name)}) == len(readings(name))
