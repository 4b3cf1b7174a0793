import lzma
import shutil
import tarfile

import numpy as np
import pytest
import torch

from detection.data.images import read_image
from detection.errors import DatasetError
from detection.pretraining import archives, folders
from detection.pretraining.folders import decode_ahead, load_folders
from tests.pretraining.class_folders import BGR, pack, write_data, write_image, write_split


def test_labels_follow_the_sorted_class_names(tmp_path):
    write_split(tmp_path, "train", ("berry", "apple"), count=2)
    (folder,) = load_folders(tmp_path, ["train"])
    assert folder.class_names == ("apple", "berry")
    assert folder.labels.tolist() == [0, 0, 1, 1]
    assert [file.split("/")[-2:] for file in folder.files[1:3]] == [["apple", "01.png"], ["berry", "00.png"]]
    np.testing.assert_array_equal(folder.image(2), read_image(folder.files[2]))


def test_a_split_may_be_the_root_itself(tmp_path):
    write_split(tmp_path, "train")
    (folder,) = load_folders(tmp_path / "train", ["."])
    assert folder.class_names == ("apple", "berry") and len(folder) == 8


@pytest.mark.parametrize("packed", [False, True])
def test_images_in_no_class_folder_are_told(tmp_path, caplog, packed):
    write_split(tmp_path, "train", count=1)
    shutil.copy(tmp_path / "train/apple/00.png", tmp_path / "train/stray.png")
    root = tmp_path
    if packed:
        root = tmp_path / "x.tar"
        with tarfile.open(root, "w") as archive:
            archive.add(tmp_path / "train", "train")
    (folder,) = load_folders(root, ["train"])
    assert len(folder) == 2 and len(caplog.records) == 1
    assert "1 images are in no class folder and left out; the first: '" in caplog.text and "stray.png'" in caplog.text


def test_leavings_of_file_managers_are_no_images_and_no_classes(tmp_path):
    write_split(tmp_path, "train", count=1)
    (tmp_path / "train/apple/.DS_Store").write_text("x")
    (tmp_path / "train/apple/._00.png").write_text("x")
    (tmp_path / "train/apple/notes.txt").write_text("x")
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/labels.csv").write_text("x")
    (folder,) = load_folders(tmp_path, ["train"])
    assert len(folder) == 2


def test_missing_root_and_split(tmp_path):
    write_split(tmp_path, "train")
    with pytest.raises(DatasetError, match="no folder or archive of images at .*nowhere"):
        load_folders(tmp_path / "nowhere", ["train"])
    with pytest.raises(DatasetError, match="has no split 'val'; it holds train"):
        load_folders(tmp_path, ["train", "val"])


def test_empty_split_and_empty_class(tmp_path):
    write_split(tmp_path, "train")
    (tmp_path / "val").mkdir()
    with pytest.raises(DatasetError, match="split 'val' of .* has no class folders"):
        load_folders(tmp_path, ["train", "val"])
    (tmp_path / "train/zebra").mkdir()
    with pytest.raises(DatasetError, match="classes without images: zebra"):
        load_folders(tmp_path, ["train"])


@pytest.mark.parametrize("packed", [False, True])
def test_splits_with_different_classes(tmp_path, packed):
    write_split(tmp_path / "set", "train", ("apple", "berry"))
    write_split(tmp_path / "set", "val", ("apple", "clover"))
    root = pack(tmp_path / "set", tmp_path / "set.tar", "w") if packed else tmp_path / "set"
    with pytest.raises(DatasetError, match="only 'train' has berry; only 'val' has clover"):
        load_folders(root, ["train", "val"])


@pytest.mark.parametrize(("mode", "prefix"), [("w", ""), ("w:gz", "./"), ("w:xz", ""), ("w:bz2", "")])
def test_an_archive_reads_as_its_folder(tmp_path, mode, prefix):
    root = write_data(tmp_path / "set", count=2)
    archive = pack(root, tmp_path / "set.tar", mode, prefix)
    for ours, theirs in zip(load_folders(archive, ["train", "val"]), load_folders(root, ["train", "val"]), strict=True):
        assert ours.class_names == theirs.class_names
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert [file.split("/")[-3:] for file in ours.files] == [file.split("/")[-3:] for file in theirs.files]
        for index in range(len(theirs)):
            np.testing.assert_array_equal(ours.image(index), theirs.image(index))


def test_one_split_may_be_asked_for_under_two_names(tmp_path):
    archive = pack(write_data(tmp_path / "set", count=1), tmp_path / "set.tar", "w")
    first, second = load_folders(archive, ["val", "val"])
    assert first.files == second.files and len(first) == 2


@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_an_archive_cut_anywhere_is_refused(tmp_path, mode):
    whole = pack(write_data(tmp_path / "set", count=1), tmp_path / "set.tar", mode).read_bytes()
    # A plain archive ends with 20 blocks of zeros at most; before them every byte counts.
    end = len(whole) if mode == "w:xz" else len(whole.rstrip(b"\0"))
    cut = tmp_path / "cut.tar"
    for length in [*range(0, end, max(end // 40, 1)), *range(512, end, 512)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="cut.tar"):
            load_folders(cut, ["train"])


def test_what_is_no_archive_is_refused_in_one_line(tmp_path):
    path = tmp_path / "set.tar.xz"
    for content in (b"", b"hello", lzma.compress(b"hello" * 1000)):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="not a readable .tar archive|cut short") as caught:
            load_folders(path, ["train"])
        assert "\n" not in str(caught.value)


def test_an_archive_too_large_for_the_memory_is_to_be_unpacked(tmp_path, monkeypatch):
    archive = pack(write_data(tmp_path / "set", count=1), tmp_path / "set.tar", "w")
    monkeypatch.setattr(archives, "MEMORY_LIMIT", 1000)
    with pytest.raises(DatasetError, match="unpack it"):
        load_folders(archive, ["train"])


def test_images_of_one_size_are_decoded_ahead(tmp_path):
    (folder,) = load_folders(write_split(tmp_path, "train"), ["train"])
    decoded = decode_ahead(folder)
    assert decoded.pixels is not None and decoded.pixels.shape == (8, 32, 32, 3) and decoded.pixels.dtype == torch.uint8
    assert decoded.files == folder.files and decoded.labels.tolist() == folder.labels.tolist()
    shutil.rmtree(tmp_path / "train")
    assert abs(decoded.image(7).mean(axis=(0, 1)) - BGR["berry"][::-1]).max() < 10


def test_images_of_many_sizes_or_too_many_stay_on_disk(tmp_path, monkeypatch):
    write_split(tmp_path, "train")
    (folder,) = load_folders(tmp_path, ["train"])
    with monkeypatch.context() as patch:
        patch.setattr(folders, "MEMORY_LIMIT", 8 * 32 * 32 * 3 - 1)
        assert decode_ahead(folder) is folder
    write_image(tmp_path / "train/berry/99.png", BGR["berry"], 0, (20, 40))
    (folder,) = load_folders(tmp_path, ["train"])
    assert decode_ahead(folder) is folder


def test_bad_images_stop_the_run_or_are_left_out(tmp_path, caplog):
    write_split(tmp_path, "train")
    bad = tmp_path / "train/apple/01.png"
    bad.write_bytes(bad.read_bytes()[:-300])
    (folder,) = load_folders(tmp_path, ["train"])
    with pytest.raises(DatasetError, match="apple/01.png"):
        decode_ahead(folder, "error")
    decoded = decode_ahead(folder, "skip")
    assert len(decoded) == 7 and str(bad) not in decoded.files and decoded.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert "1 of 8 images" in caplog.text
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none of the 8 images"):
        decode_ahead(folder, "skip")


def test_imagenet_mini_is_read(real_data):
    (folder,) = load_folders(real_data / "imagenet_mini", ["."])
    assert len(folder.class_names) == 100 and len(folder) == 100
    assert decode_ahead(folder) is folder  # photographs have many sizes
    assert all(folder.image(index).shape[2] == 3 for index in range(0, 100, 10))


def test_cifar_is_read_from_its_archive(real_data):
    (folder,) = load_folders(real_data / "cifar10_jpeg.tar.xz", ["test"])
    assert len(folder) == 10000 and folder.class_names[0] == "airplane" and folder.class_names[-1] == "truck"
    assert torch.bincount(folder.labels).tolist() == [1000] * 10
    assert folder.image(9999).shape == (32, 32, 3)
