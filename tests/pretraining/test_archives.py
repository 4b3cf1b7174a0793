"""Archives that promise more than they hold, or hold more than they should; links; damage."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.errors import DatasetError
from detection.pretraining import archives
from detection.pretraining.archives import read_archive
from detection.pretraining.folders import load_folders
from tests.pretraining.class_folders import pack, write_data, write_split

TERABYTES = 2**43


def header(name, size=0, kind=tarfile.REGTYPE, linkname="", **values) -> bytes:
    """One header; sizes beyond eight octal digits, and negative ones, in base 256."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, linkname, max(size, 0)
    for key, value in values.items():
        setattr(member, key, value)
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = (2**96 + size).to_bytes(12, "big")
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


END = bytes(10240)
ZEROS = 1 << 26


def zeros(number) -> bytes:
    """`number` times 64 MiB, in gzip; a gzip file may have many parts."""
    return gzip.compress(bytes(ZEROS), 9) * number


def nested(kind, count) -> bytes:
    return (header("././@LongLink", 5, kind) + b"name\0".ljust(512, b"\0")) * count + header("train/apple/a.png") + END


HOSTILE = {
    "6 GB of zeros": zeros(100),
    "6 GB of zeros in a member that is not wanted": gzip.compress(header("notes.txt", 100 * ZEROS)) + zeros(100),
    "6 GB of zeros in an image": gzip.compress(header("train/apple/a.png", 100 * ZEROS)) + zeros(100),
    "6 GB of zeros in a long name": gzip.compress(header("././@LongLink", 100 * ZEROS, tarfile.GNUTYPE_LONGNAME)) + zeros(100),
    "6 GB of zeros in an extended header": gzip.compress(header("x", 100 * ZEROS, tarfile.XHDTYPE)) + zeros(100),
    "a promise": header("train/apple/a.png", TERABYTES) + b"some bytes",
    "a promise, compressed": gzip.compress(header("train/apple/a.png", TERABYTES) + b"some bytes"),
    "a promise, bz2": bz2.compress(header("train/apple/a.png", TERABYTES) + b"some bytes"),
    "a promise, xz": lzma.compress(header("notes.txt", TERABYTES) + b"some bytes"),
    "a long name": header("././@LongLink", TERABYTES, tarfile.GNUTYPE_LONGNAME) + END,
    "a long link": header("././@LongLink", TERABYTES, tarfile.GNUTYPE_LONGLINK) + END,
    "an extended header": header("x", TERABYTES, tarfile.XHDTYPE) + END,
    "a global header": header("x", TERABYTES, tarfile.XGLTYPE) + END,
    "a negative size": header("train/apple/a.png", -512) + END,
    "a negative size back to the start": header("a") + header("train/apple/a.png", -1024) + END,
    "a negative long name": header("././@LongLink", -512, tarfile.GNUTYPE_LONGNAME) + END,
    "a negative folder": header("train/apple", -5120, tarfile.DIRTYPE) + END,
    "long names without end": nested(tarfile.GNUTYPE_LONGNAME, 20_000),
    "long links without end": nested(tarfile.GNUTYPE_LONGLINK, 20_000),
    "cut in a header": header("train/apple/a.png", 100)[:300],
    "cut in an image": header("train/apple/a.png", 100) + bytes(50),
    "no end": header("train/apple/a.png", 0),
    "zeros without end": header("notes.txt") + bytes(ZEROS + (1 << 21)),
    "nothing": b"",
    "only an end": END,
    "text": b"hello" * 1000,
    "text, compressed": gzip.compress(b"hello" * 1000),
    "cut gzip": gzip.compress(header("train/apple/a.png", 0) + END)[:-9],
    "a wrong checksum": gzip.compress(header("train/apple/a.png", 0) + END)[:-8] + bytes(8),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_one_line_and_little_memory(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"x\.tar") as caught:
            load_folders(tmp_path / "x.tar", ["train"])
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_bounds_are_named(tmp_path, monkeypatch):
    root = write_data(tmp_path / "set", count=2)
    plain, packed = pack(root, tmp_path / "set.tar", "w"), pack(root, tmp_path / "set.tar.gz", "w:gz")
    with monkeypatch.context() as patch:
        patch.setattr(archives, "MAX_MEMBERS", 5)
        with pytest.raises(DatasetError, match="more than 5 members: unpack it"):
            load_folders(plain, ["train"])
    monkeypatch.setattr(archives, "UNPACKED_LIMIT", 3 << 10)
    assert len(load_folders(plain, ["train"])[0]) == 4  # nothing has to be decompressed
    with pytest.raises(DatasetError, match="more than 0 MiB when decompressed: unpack it"):
        load_folders(packed, ["train"])


def test_an_image_is_measured_before_it_is_read(tmp_path, monkeypatch):
    archive = pack(write_data(tmp_path / "set", count=1), tmp_path / "set.tar", "w")
    monkeypatch.setattr(archives, "MEMORY_LIMIT", 1000)
    monkeypatch.setattr(archives._BoundedStream, "read_whole", None)
    with pytest.raises(DatasetError, match="MiB of images: unpack it"):
        load_folders(archive, ["train"])


def add(tar, name, data=b"", kind=tarfile.REGTYPE, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, len(data)
    tar.addfile(member, io.BytesIO(data))


LINKS = [
    ("hard", tarfile.LNKTYPE, "train/apple/00.png"),
    ("hard, with a dot", tarfile.LNKTYPE, "./train/apple/00.png"),
    ("symbolic", tarfile.SYMTYPE, "../apple/00.png"),
    ("hard, to another split", tarfile.LNKTYPE, "val/apple/00.png"),
    ("symbolic, to no class folder", tarfile.SYMTYPE, "../../pool/x"),
]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize(("kind", "target"), [link[1:] for link in LINKS], ids=[link[0] for link in LINKS])
def test_links_are_followed(tmp_path, mode, kind, target, caplog):
    root = write_split(write_split(tmp_path / "set", "train", count=1), "val", count=1)
    picture = (root / "train/apple/00.png").read_bytes()
    (root / "val/apple/00.png").write_bytes(picture)
    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        add(tar, "train/berry/first.png", kind=kind, target=target)  # before what it leads to
        for name in ("train/apple/00.png", "val/apple/00.png", "pool/x"):
            add(tar, name, picture)
        add(tar, "train/berry/last.png", kind=tarfile.LNKTYPE, target="train/berry/first.png")
    (folder,) = load_folders(tmp_path / "x.tar", ["train"])
    assert [file.split("/")[-2:] for file in folder.files[1:]] == [["berry", "first.png"], ["berry", "last.png"]]
    for index in range(3):
        np.testing.assert_array_equal(folder.image(index), folder.image(0))
    assert not caplog.text


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.LNKTYPE, "nowhere.png"),
        (tarfile.SYMTYPE, "nowhere.png"),
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../../../etc/passwd"),
        (tarfile.LNKTYPE, "train/apple/link.png"),
        (tarfile.SYMTYPE, "link.png"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ],
)
def test_what_leads_nowhere_is_said(tmp_path, kind, target, caplog):
    root = write_split(tmp_path / "set", "train", count=1)
    archive = pack(root, tmp_path / "x.tar", "w")
    with tarfile.open(archive, "a") as tar:
        add(tar, "train/apple/link.png", kind=kind, target=target)
        add(tar, "train/cherry", kind=tarfile.SYMTYPE, target="apple")
    (folder,) = load_folders(archive, ["train"])
    assert len(folder) == 2
    assert (
        "2 links to no image of the archive, pipes and the like are left out; the first: 'train/apple/link.png'" in caplog.text
    )


def test_the_last_of_one_name_counts_and_nothing_leaves_the_archive(tmp_path):
    root = write_split(tmp_path / "set", "train", count=1)
    archive = pack(root, tmp_path / "x.tar", "w")
    with tarfile.open(archive, "a") as tar:
        add(tar, "./train/apple/00.png", (root / "train/berry/00.png").read_bytes())
        add(tar, "../train/apple/01.png", b"")
        add(tar, "train/../train/apple/../apple/02.png", (root / "train/apple/00.png").read_bytes())
        add(tar, "train/.hidden/02.png", b"")
    (folder,) = load_folders(archive, ["train"])
    assert [file.split("x.tar/")[1] for file in folder.files] == [
        "train/apple/00.png",
        "train/apple/02.png",
        "train/berry/00.png",
    ]
    np.testing.assert_array_equal(folder.image(0), folder.image(2))


def test_kinds_that_are_not_read_are_said(tmp_path, caplog):
    root = write_split(tmp_path / "set", "train", count=1)
    (root / "train/apple/a.jxl").write_bytes(b"")
    (root / "train/berry/b.JXR").write_bytes(b"")
    (root / "train/berry/notes.txt").write_bytes(b"")
    for place in (root, pack(root, tmp_path / "x.tar", "w")):
        caplog.clear()
        load_folders(place, ["train"])
        assert "2 files are left out, images of kinds that are not read" in caplog.text and len(caplog.records) == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes in folders are POSIX's")
def test_a_pipe_is_no_archive(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(DatasetError, match="not a regular file"):
        load_folders(tmp_path / "x.tar", ["train"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4), st.booleans())
def test_any_damage_is_one_line(tmp_path_factory, damage, extended):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT if extended else tarfile.GNU_FORMAT) as tar:
        add(tar, "train/apple/" + "long" * 40 + ".png", b"x" * 600)
        add(tar, "train/berry/ü.png", b"y")
        add(tar, "train/berry/b.png", kind=tarfile.LNKTYPE, target="train/berry/ü.png")
    content = bytearray(stream.getvalue())
    for place, piece in damage:
        content[place : place + len(piece)] = piece
        if place % 2:  # a header whose checksum is right again
            block = place // 512 * 512
            content[block + 148 : block + 156] = b" " * 8
            content[block + 148 : block + 156] = b"%06o\0 " % sum(content[block : block + 512])
    path = tmp_path_factory.mktemp("damage") / "x.tar"
    path.write_bytes(content)
    try:
        read_archive(path, lambda parts: parts[-1:] != ())
    except DatasetError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
