"""What is listed of a folder, and what is not."""

import os
from pathlib import Path

import pytest

from detection.data.formats import listing
from detection.data.formats.listing import list_folder
from detection.errors import DatasetError


def make(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_files_and_folders_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    make(tmp_path, "b/2.JPG", "b/1.txt", "a.xml", "b/c/3.jpg", "z/.keep")
    found = list_folder(tmp_path)
    assert found.files == ("a.xml", "b/1.txt", "b/2.JPG", "b/c/3.jpg")
    assert found.folders == ("b", "b/c", "z")
    assert found.images == ["b/2.JPG", "b/c/3.jpg"]
    assert found.by_suffix == {".xml": ["a.xml"], ".txt": ["b/1.txt"], ".jpg": ["b/2.JPG", "b/c/3.jpg"]}
    assert found.within("b/c") == ["b/c/3.jpg"] and found.within("") == found.files


def test_what_systems_leave_behind_is_not_listed(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", "._a.jpg", ".git/b.jpg", "__MACOSX/a.jpg", "Thumbs.db", "sub/desktop.ini", "@eaDir/a.jpg")
    assert list_folder(tmp_path).files == ("a.jpg",)


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.jpg", "data/b.jpg")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/up").symlink_to(tmp_path)
    (tmp_path / "data/itself").symlink_to(tmp_path / "data/itself")
    (tmp_path / "data/nothing.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "data/pipe.jpg")
    files = list_folder(tmp_path / "data").files
    assert {"again/a.jpg", "b.jpg", "linked/a.jpg", "up/elsewhere/a.jpg"} <= set(files)
    assert not any("data/data" in file or "up/data/" in file or "nothing" in file or "pipe" in file for file in files)


def test_what_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match=r"cannot list the folder .*none: No such file"):
        list_folder(tmp_path / "none")
    make(tmp_path, "a", "b", "c/d")
    monkeypatch.setattr(listing, "MAX_ENTRIES", 3)
    with pytest.raises(DatasetError, match="holds more than 3 files and folders: name the folder of the data set"):
        list_folder(tmp_path)
