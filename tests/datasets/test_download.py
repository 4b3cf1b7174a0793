"""Downloads from a server on this machine that breaks off, knows no ranges, or serves something else."""

import contextlib
import errno
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backbones.weights import download
from detection.data.images import read_image
from tests.datasets.scripts import load_script
from tests.file_server import Server

script = load_script("download")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


VOC = {"VOCdevkit/VOC2012/JPEGImages/a.jpg": np.random.default_rng(0).bytes(50_000)}


def offer(server: Server, monkeypatch, content: bytes, name: str = "a.tar", holds: str = "VOCdevkit/VOC2012", **more) -> None:
    """Let voc2012 be one archive of the server's."""
    server.files[name] = content
    archive = script.Archive(f"{server.url}/{name}", hashlib.md5(content).hexdigest(), holds, **more)
    monkeypatch.setitem(script.DATASETS, "voc2012", (archive,))


def fetch(root: Path, *options: str) -> int:
    return script.main(["voc2012", "--root", str(root), *options])


def unpacked(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in (root / "VOCdevkit").rglob("*") if path.is_file()}


def test_fetched_unpacked_and_then_left_alone(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    assert fetch(tmp_path) == 0
    assert unpacked(tmp_path) == VOC
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["a.tar.done"]
    assert capsys.readouterr().out.endswith(f"voc2012: complete in {tmp_path}\n")
    assert fetch(tmp_path) == 0
    assert capsys.readouterr().out == f"voc2012: is there already, in {tmp_path}\n"
    assert len(server.requests) == 1


def test_a_broken_connection_is_taken_up_where_it_ended(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, tar_of(VOC))
    server.breaks = [10_000, 15_000]
    assert fetch(tmp_path) == 0
    assert server.requests == ["", "bytes=10000-", "bytes=25000-"]
    assert unpacked(tmp_path) == VOC


def test_after_too_many_breaks_the_next_run_goes_on(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    server.breaks = [20_000, 0, 0]
    assert fetch(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "closed at 20000 of" in error and "20000 bytes are kept" in error
    server.requests.clear()
    assert fetch(tmp_path) == 0
    assert server.requests == ["bytes=20000-"]
    assert unpacked(tmp_path) == VOC


@pytest.mark.parametrize("start", [b"", b"another file's first bytes"])
def test_a_wrong_checksum_deletes_the_file(start, server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    server.files["a.tar"] = start + server.files["a.tar"][len(start) :] + b"more"
    assert fetch(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is not the file that was published: its md5 begins with" in error
    assert not list((tmp_path / "archives").iterdir())
    assert not (tmp_path / "VOCdevkit").exists()


def test_an_archive_put_there_by_hand(server, monkeypatch, tmp_path, capsys):
    content = tar_of(VOC)
    offer(server, monkeypatch, content)
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "a.tar").write_bytes(content[:-1])
    assert fetch(tmp_path) == 2
    assert "delete it" in capsys.readouterr().err and (tmp_path / "archives" / "a.tar").exists()
    (tmp_path / "archives" / "a.tar").write_bytes(content)
    assert fetch(tmp_path, "--keep") == 0
    assert server.requests == [] and (tmp_path / "archives" / "a.tar").exists()


def test_a_mirror(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, tar_of(VOC))
    archive = script.Archive("https://publisher.invalid/x/a.tar", script.DATASETS["voc2012"][0].md5, "VOCdevkit/VOC2012")
    monkeypatch.setitem(script.DATASETS, "voc2012", (archive,))
    assert fetch(tmp_path, "--base-url", server.url + "/") == 0
    assert unpacked(tmp_path) == VOC


@pytest.mark.parametrize(
    ("base", "words"),
    [("{url}/absent", "HTTP Error 404"), ("mirror", "unknown url type"), ("http://127.0.0.1:9", "refused")],
)
def test_unreachable_is_one_line(base, words, server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    assert fetch(tmp_path, "--base-url", base.format(url=server.url)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot download") and error.count("\n") == 1 and words in error
    assert len(server.requests) <= 1


def test_too_little_space_is_told_before_the_download(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    assert fetch(tmp_path) == 2
    assert "make room" in capsys.readouterr().err


def test_a_disk_that_fills_up_is_told(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(script, "unpack", full)
    assert fetch(tmp_path) == 2
    assert "No space left on device; the same command goes on" in capsys.readouterr().err


def test_an_interruption_while_unpacking_is_made_good(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "unpack", interrupted)
        assert fetch(tmp_path) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert fetch(tmp_path) == 0
    assert len(server.requests) == 1 and unpacked(tmp_path) == VOC


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt"])
@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_an_archive_cannot_write_elsewhere(kind, name, server, monkeypatch, tmp_path, capsys):
    files = {name: b"x", **VOC}
    offer(server, monkeypatch, zip_of(files) if kind == "a.zip" else tar_of(files), kind)
    root = tmp_path / "root"
    code = fetch(root)
    # tarfile's filter makes an absolute path relative, or refuses it.
    assert code == 2 or (kind, name) == ("a.tar", "/evil.txt")
    assert not (tmp_path / "evil.txt").exists() and not Path("/evil.txt").exists()
    assert capsys.readouterr().err.count("\n") == (1 if code else 0)


def tar_of_members(*members: tarfile.TarInfo, content: bytes = b"", mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for member in members:
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def zip_with_a_password() -> bytes:
    data = bytearray(zip_of(VOC))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**27))
    return stream.getvalue()


HOSTILE = [
    ("a.tar", lambda: tar_of_members(member("VOCdevkit/a", tarfile.SYMTYPE, "/etc/passwd")), "is a link or a device"),
    ("a.tar", lambda: tar_of_members(member("VOCdevkit/a", tarfile.SYMTYPE, "b")), "is a link or a device"),
    ("a.tar", lambda: tar_of_members(member("VOCdevkit/a", tarfile.LNKTYPE, "../../b")), "is a link or a device"),
    ("a.tar", lambda: tar_of_members(member("VOCdevkit/a", tarfile.FIFOTYPE)), "is a link or a device"),
    ("a.tar", lambda: tar_of_members(member("VOCdevkit/\x1b[2Ja", tarfile.CHRTYPE)), r"\x1b[2Ja' is a link or a device"),
    ("a.tar.gz", lambda: tar_of_members(member("z", size=2**27), content=bytes(2**27), mode="w:gz"), "over 50 times its size"),
    ("a.zip", zip_bomb, "over 50 times its size"),
    ("a.zip", zip_with_a_password, "password"),
    ("a.zip", lambda: zip_of({"..\\..\\evil.txt": b"x"}), "would land outside"),
    ("a.tar", lambda: tar_of({f"{index}": b"" for index in range(12)}), "it holds more than 10 files"),
    ("a.tar", lambda: tar_of({"a" * 4000: b"x"}), "File name too long"),
    ("a.tar", lambda: b"no archive at all" * 100, "cannot unpack"),
    ("a.tar.gz", lambda: gzip.compress(tar_of(VOC))[:-9000], "cannot unpack"),
    ("a.zip", lambda: zip_of(VOC)[:-30], "cannot unpack"),
    ("a.zip", lambda: b"", "cannot unpack"),
]


@pytest.mark.parametrize(("kind", "make", "words"), HOSTILE)
def test_a_hostile_archive_is_one_line(kind, make, words, server, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "MOST_MEMBERS", 10)
    content = make()
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / kind).write_bytes(content)  # put there by hand: the download refuses an empty one
    offer(server, monkeypatch, content, kind)
    assert fetch(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error and error.rstrip("\n").isprintable()
    assert not (tmp_path / "archives" / f"{kind}.done").exists()


def test_too_little_space_is_told_before_unpacking(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of(VOC))
    usage = script.shutil.disk_usage(tmp_path)
    full = iter([usage, usage._replace(free=1000)])  # the download's look, then that before unpacking
    monkeypatch.setattr(script.shutil, "disk_usage", lambda folder: next(full))
    assert fetch(tmp_path) == 2
    assert "to unpack" in capsys.readouterr().err and not (tmp_path / "VOCdevkit").exists()


def test_mutated_archives_are_one_line(tmp_path):
    """Whatever the damage: unpacked, an ArchiveError or an OSError, and nothing outside."""
    originals = {"a.zip": zip_of(VOC), "a.tar": tar_of(VOC), "a.tar.gz": gzip.compress(tar_of(VOC))}
    rng = np.random.default_rng(0)
    for number in range(150):
        kind = list(originals)[number % 3]
        content = bytearray(originals[kind])
        places = rng.integers(len(content), size=4) if number % 2 else rng.integers(1, 600, size=4) * rng.choice([-1, 1])
        for place in places:
            content[place] = rng.integers(256)
        file, folder = tmp_path / kind, tmp_path / "inside" / str(number)
        file.write_bytes(content)
        with contextlib.suppress(script.ArchiveError, OSError):
            script.unpack(file, folder, lambda done, total: None)
        assert {path.name for path in tmp_path.iterdir()} <= {"inside", *originals}


def test_two_at_once_end_well(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, tar_of(VOC))
    with ThreadPoolExecutor() as pool:
        codes = list(pool.map(lambda _: script.obtain(script.DATASETS["voc2012"][0], tmp_path, None, False), range(4)))
    assert sorted(codes) == [False, False, False, True] and unpacked(tmp_path) == VOC and len(server.requests) == 1


def test_zip_into_a_sub_folder(server, monkeypatch, tmp_path):
    offer(server, monkeypatch, zip_of({"val2017/1.jpg": b"1"}), "val2017.zip", "val2017", unpack_to="coco")
    assert fetch(tmp_path) == 0
    assert (tmp_path / "coco" / "val2017" / "1.jpg").read_bytes() == b"1"


def test_an_archive_without_what_it_should_hold(server, monkeypatch, tmp_path, capsys):
    offer(server, monkeypatch, tar_of({"else": b""}))
    assert fetch(tmp_path) == 2
    assert "was not in it" in capsys.readouterr().err


def test_cifar10_becomes_class_folders(tmp_path):
    batches = tmp_path / "cifar-10-batches-bin"
    batches.mkdir()
    (batches / "batches.meta.txt").write_text("airplane\nautomobile\n\n")
    image = np.arange(3 * 32 * 32, dtype=np.uint32).astype(np.uint8)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (batches / f"{name}.bin").write_bytes(bytes([1]) + image.tobytes() + bytes([0]) + image[::-1].tobytes())
    script.make_class_folders(tmp_path, batches)
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert written[:2] == ["test/airplane/00001.png", "test/automobile/00000.png"] and len(written) == 6
    pixels = read_image(tmp_path / "train/automobile/00002.png")
    np.testing.assert_array_equal(pixels, image.reshape(3, 32, 32).transpose(1, 2, 0))


def test_the_table_is_sound():
    for archives in script.DATASETS.values():
        for archive in archives:
            assert re.fullmatch(r"[0-9a-f]{32}", archive.md5)
            assert archive.name.endswith((".tar", ".zip", ".tar.gz"))
    sums = [archive.md5 for archives in script.DATASETS.values() for archive in archives]
    assert len(set(sums)) == len(sums)


def test_vocs_checksums_are_torchvisions():
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    known = {(entry["url"], entry["md5"]) for entry in DATASET_YEAR_DICT.values()}
    assert {(archive.url, archive.md5) for name in ("voc2007", "voc2012") for archive in script.DATASETS[name]} <= known


def test_an_unknown_name_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_:
        script.main(["voc2099"])
    assert exit_.value.code == 2 and "coco2017" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "folder"), [("ilsvrc_det", "DET"), ("ilsvrc_loc", "CLS-LOC")])
def test_what_needs_an_account_is_explained_until_it_is_there(server, monkeypatch, tmp_path, capsys, name, folder):
    offer(server, monkeypatch, tar_of(VOC))
    (tmp_path / f"ILSVRC/Data/{folder}").mkdir(parents=True)
    assert script.main(["voc2012", name, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"ILSVRC2017_{folder}.tar.gz and ILSVRC2017_devkit.tar.gz" in error
    assert error.endswith(f"it has ILSVRC/Annotations/{folder}, ILSVRC/ImageSets/{folder}, ILSVRC/devkit/data\n")
    assert not server.requests  # nothing is fetched before that is said
    for place in script.BY_HAND[name].holds:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    assert script.main([name, "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{name}: is there already, in {tmp_path}\n"
