"""Writing a file as a whole: what is there before, during, after, and after a failure."""

import errno
import os

import pytest

from backbones.files import (
    _temporary_stem,
    exists,
    is_file,
    open_regular,
    read_regular,
    remove_leftovers,
    replacing,
    write_whole,
)


def not_files(folder):
    """A folder, a pipe that nobody writes, a device without end, a link to one, and nothing."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/dev/zero")
    return [folder / "folder", folder / "pipe", folder / "link", "/dev/zero", folder / "absent"]


def test_only_regular_files_are_opened_and_nothing_waits(tmp_path):
    for path in not_files(tmp_path):
        with pytest.raises(OSError) as failure, open_regular(path):
            pass
        assert failure.value.strerror and str(failure.value.filename) == str(path)


def test_links_to_regular_files_are_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", max_bytes=7) == b"content"


def test_a_file_over_the_bound_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(OSError, match="too large"):
        read_regular(tmp_path / "file", max_bytes=4)


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new folder" / "value.txt"
    write_whole(path, "ä old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == "ä old".encode()
    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["value.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space"), RuntimeError("broken")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "value.txt"
    write_whole(path, b"old")
    with pytest.raises(type(error)), replacing(path) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError) as found, replacing(tmp_path / "value.txt"):  # noqa: PT011
        raise OSError(errno.ENOSPC, "no space")
    assert found.value.filename == str(tmp_path / "value.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        write_whole(tmp_path / "folder", b"")
    assert refused.value.filename == str(tmp_path / "folder")


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    path = tmp_path / "value.txt"
    with replacing(path) as one, replacing(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"  # the last to end


def test_new_files_have_the_usual_permissions(tmp_path):
    write_whole(tmp_path / "ours", b"")
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_leftovers_of_killed_processes_go(tmp_path):
    for name in (".last.pt.0123abcd.tmp", ".best.pt.0123abcd.tmp", "last.pt"):
        (tmp_path / name).write_bytes(b"")
    remove_leftovers(tmp_path / "last.pt")
    assert {each.name for each in tmp_path.iterdir()} == {".best.pt.0123abcd.tmp", "last.pt"}


@pytest.mark.parametrize("name", ["n" * 255, "[a]*?.json", "\udcff" * 255, "-x", "new\nline"])
def test_a_name_as_long_or_odd_as_the_file_system_takes_is_written_and_cleaned(name, tmp_path):
    path = tmp_path / name
    write_whole(path, "one")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "one"
    leftover = tmp_path / f"{_temporary_stem(path)}.01234567.tmp"
    leftover.touch()
    remove_leftovers(path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_text_with_half_a_character_is_written_as_its_escape(tmp_path):
    write_whole(tmp_path / "a", "x\udcff")
    assert (tmp_path / "a").read_bytes() == b"x\\udcff"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "absent", "\ud800"])
def test_a_name_that_no_file_can_have_names_none(tmp_path, name):
    assert not exists(tmp_path / name) and not is_file(tmp_path / name)


def test_folders_and_pipes_are_there_and_are_no_files(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    assert exists(tmp_path) and exists(tmp_path / "pipe") and exists(tmp_path / "file")
    assert [is_file(tmp_path / name) for name in ("", "pipe", "file")] == [False, False, True]
