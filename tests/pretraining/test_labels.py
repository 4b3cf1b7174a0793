"""Validation images in one folder, with their classes in a text file: as the devkit and Caffe write them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from detection.errors import DatasetError
from detection.pretraining.folders import LabelFile, load_folders
from detection.pretraining.labels import read_class_order, read_labels
from tests.pretraining.class_folders import write_split

CLASSES = ["n01", "n02", "n03"]
FILES = ["c.png", "a.png", "b.png"]


def written(folder: Path, text: str) -> Path:
    path = folder / "labels.txt"
    path.write_text(text)
    return path


def test_the_devkit_counts_from_one_in_its_own_order_for_the_files_in_alphabetical_order(tmp_path):
    labels = read_labels(written(tmp_path, "1\n3\n2\n"), FILES, CLASSES, ["n03", "n01", "n02"])
    assert labels == {"a.png": "n03", "b.png": "n02", "c.png": "n01"}


def test_caffe_names_the_file_and_counts_from_zero(tmp_path):
    labels = read_labels(written(tmp_path, "b.png 0\nc.png 2\n\na.png 1\n"), FILES, CLASSES)
    assert labels == {"a.png": "n02", "b.png": "n01", "c.png": "n03"}


def test_class_names_need_no_order(tmp_path):
    labels = read_labels(written(tmp_path, "n02\nn02\nn01\n"), FILES, CLASSES)
    assert labels == {"a.png": "n02", "b.png": "n02", "c.png": "n01"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "2 labels for 3 images"),
        ("a.png 0\nb.png 0\n", "no label for 1 of 3 images; the first is 'c.png'"),
        ("1\n4\n1\n", r"line 2: class 4 is outside of 1\.\.3"),
        ("a.png 3\n", r"line 1: class 3 is outside of 0\.\.2"),
        ("1\nn09\n1\n", "line 2: 'n09' is not a class folder"),
        ("a.png 0\nd.png 0\n", "line 2: there is no image 'd.png'"),
        ("a.png 0\na.png 1\n", "line 2: 'a.png' has a label already"),
        ("a.png 0\nb.png one two\n", "line 2: expected 'FILE CLASS'"),
        ("", "no label for 3 of 3"),
    ],
)
def test_faults_name_the_line(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_labels(written(tmp_path, text), FILES, CLASSES)


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="cannot read"):
        read_labels(tmp_path / "absent.txt", FILES, CLASSES)


def test_an_order_is_the_first_word_of_each_line(tmp_path):
    assert read_class_order(written(tmp_path, "n03 a thing\nn01 another, thing\n")) == ["n03", "n01"]


def test_the_devkits_meta_mat_gives_the_order_of_its_leaves(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("num_children", object)]
    rows = [(2, "n01", "x", "x", 0), (1, "n02", "y", "y", 0), (3, "n00", "root", "z", 2)]
    savemat(tmp_path / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]})
    assert read_class_order(tmp_path / "meta.mat") == ["n02", "n01"]
    with pytest.raises(DatasetError, match=r"is not the meta\.mat"):
        read_class_order(Path(shutil.copy(written(tmp_path, "nonsense"), tmp_path / "other.mat")))


def test_a_flat_split_equals_the_same_images_in_class_folders(tmp_path):
    root = write_split(write_split(tmp_path, "train"), "val")
    flat = tmp_path / "flat"
    flat.mkdir()
    lines = []
    for number, file in enumerate(sorted((root / "val").rglob("*.png"))):
        shutil.copy(file, flat / f"{number}.png")
        lines.append(f"{number}.png {file.parent.name}\n")
    labels = {"flat": LabelFile(written(tmp_path, "".join(lines)), "train")}
    (sorted_,), (ours,) = load_folders(root, ["val"]), load_folders(root, ["flat"], labels)
    assert ours.class_names == sorted_.class_names and ours.labels.tolist() == sorted_.labels.tolist()
    assert all((ours.image(index) == sorted_.image(index)).all() for index in range(len(ours)))


def test_names_of_files_and_classes_may_hold_blanks(tmp_path):
    files, classes = ["photo 1.png", "photo.png", "b.png"], ["cat", "big cat"]
    text = "photo 1.png big cat\nphoto.png  cat\nb.png\t1\n"
    expected = {"photo 1.png": "big cat", "photo.png": "cat", "b.png": "cat"}
    assert read_labels(written(tmp_path, text), files, classes, ["big cat", "cat"]) == expected
    assert read_labels(written(tmp_path, "big cat\ncat\ncat\n"), files, classes) == {
        "b.png": "big cat",
        "photo 1.png": "cat",
        "photo.png": "cat",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photo x cat\n", "expected 'FILE CLASS', got 'photo x cat', which begins with several of the images"),
        ("other x cat\n", "which begins with none of the images"),
        ("photo " * 1000, "expected 'FILE CLASS', got 5999 characters"),
        ("photo \uff11\n", "'\uff11' is not a class folder"),
        ("photo 1_0\n", "'1_0' is not a class folder"),
        ("photo " + "9" * 3000 + "\n", "is not a class folder"),
        ("photo -1\n", "'-1' is not a class folder"),
        ("photo \x1b[31m\n", r"'\\x1b\[31m' is not a class folder"),
    ],
)
def test_lines_that_mean_nothing_or_too_much(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read_labels(written(tmp_path, text), ["photo", "photo x"], ["cat"])
    assert len(str(caught.value)) < 500


def test_files_of_labels_that_are_no_text(tmp_path):
    for content in (b"\xff\xfe1", b"caf\xe9 1"):
        (tmp_path / "labels.txt").write_bytes(content)
        for read in (lambda path: read_labels(path, FILES, CLASSES), read_class_order):
            with pytest.raises(DatasetError, match="is not a text file in UTF-8"):
                read(tmp_path / "labels.txt")


@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
@pytest.mark.parametrize("name", ["labels.txt", "meta.mat"])
def test_pipes_are_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DatasetError, match="not a regular file"):
        read_class_order(tmp_path / name)


def test_a_damaged_meta_mat_ends_neither_the_process_nor_the_memory(tmp_path):
    """The second claims an array of 2^31 numbers; SciPy's reader has crashed on less."""
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(tmp_path / "meta.mat", {"synsets": np.zeros((2, 2))})
    whole = (tmp_path / "meta.mat").read_bytes()
    sizes = whole.index((2).to_bytes(4, "little") * 2)
    huge = whole[:sizes] + (2**31 - 1).to_bytes(4, "little") * 2 + whole[sizes + 8 :]
    for content in (whole, huge, whole[:200], whole[:128] + bytes(range(256)) * 4):
        (tmp_path / "meta.mat").write_bytes(content)
        with pytest.raises(DatasetError, match=r"is not the meta\.mat"):
            read_class_order(tmp_path / "meta.mat")
