"""Fetch the official archives of Pascal VOC, COCO and CIFAR-10, check them and unpack them where the configs look.

A download that breaks off goes on where it stopped, at once or when the command is run again. What is complete is left
alone. ImageNet's archives need an account: of them the command says which, and where they go.

    python datasets/download.py voc2007 voc2012
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import os
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from backbones.weights.download import ReportProgress

VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC"
COCO_URL = "http://images.cocodataset.org"  # has no certificate of its own; the checksums vouch for the files


MOST_EXPANSION = 50  # times an archive's size
MOST_MEMBERS = 1_000_000  # files in an archive; COCO's largest has 120 thousand


class ArchiveError(ValueError):
    """A file cannot be had, kept or unpacked: one line for the user."""


@dataclass(frozen=True)
class Archive:
    """One file of a publisher."""

    url: str
    md5: str
    holds: str  # a path below `unpack_to` that is there once it is unpacked
    unpack_to: str = "."  # below --root
    cifar_batches: bool = False  # whether it holds CIFAR-10's batches, to be turned into class folders

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


# VOC's checksums are torchvision's (torchvision.datasets.voc), CIFAR-10's stands on its own page. COCO publishes none: these
# are the values on which PaddleDetection, MLPerf's reference scripts and many other projects agree.
DATASETS = {
    "voc2007": (
        Archive(f"{VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", "VOCdevkit/VOC2007"),
        Archive(f"{VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", "VOCdevkit/VOC2007"),
    ),
    "voc2012": (
        Archive(f"{VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", "VOCdevkit/VOC2012"),
    ),
    "coco2014": (
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2014.zip",
            "0a379cfc70b0e71301e0f377548639bd",
            "annotations/instances_train2014.json",
            "coco",
        ),
        Archive(f"{COCO_URL}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3", "val2014", "coco"),
        Archive(f"{COCO_URL}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88", "train2014", "coco"),
    ),
    "coco2017": (
        Archive(
            f"{COCO_URL}/annotations/annotations_trainval2017.zip",
            "f4bbac642086de4f52a3fdda2de5fa2c",
            "annotations/instances_train2017.json",
            "coco",
        ),
        Archive(f"{COCO_URL}/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017", "coco"),
        Archive(f"{COCO_URL}/zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", "train2017", "coco"),
    ),
    "cifar10": (
        # The binary version: the Python one is pickled.
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            "test",
            "cifar10",
            cifar_batches=True,
        ),
    ),
}


@dataclass(frozen=True)
class ByHand:
    """A data set that its publishers give to those who have an account and accept the terms."""

    archives: str
    holds: tuple[str, ...]  # paths below --root that are there once the archives are unpacked in it


_DEVKIT = "ILSVRC/devkit/data"
_IMAGE_NET = "https://image-net.org"
BY_HAND = {
    "ilsvrc_det": ByHand(
        f"ILSVRC2017_DET.tar.gz and ILSVRC2017_devkit.tar.gz from {_IMAGE_NET}",
        ("ILSVRC/Data/DET", "ILSVRC/Annotations/DET", "ILSVRC/ImageSets/DET", _DEVKIT),
    ),
    "ilsvrc_loc": ByHand(
        f"ILSVRC2017_CLS-LOC.tar.gz and ILSVRC2017_devkit.tar.gz from {_IMAGE_NET}, or in place of the first "
        "imagenet_object_localization_patched2019.tar.gz from https://www.kaggle.com/c/imagenet-object-localization-challenge",
        ("ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC", "ILSVRC/ImageSets/CLS-LOC", _DEVKIT),
    ),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    from backbones.files import expand_home

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*DATASETS, *BY_HAND]
    parser.add_argument("datasets", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    root = expand_home(os.environ.get("RESDET_DATASETS") or Path(__file__).parent)
    parser.add_argument("--root", type=Path, default=root, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--base-url", metavar="URL", help="a folder of a mirror that holds the files; checksums still count")
    parser.add_argument("--keep", action="store_true", help="keep the archives (in DIR/archives) after unpacking")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch what is asked for. Exit code 2 for what the user can mend, 130 when interrupted."""
    options = build_parser().parse_intermixed_args(argv)
    try:
        names = dict.fromkeys(options.datasets)
        # What only its user can do is said at once, not after hours of downloads.
        for name in names:
            if name in BY_HAND:
                require_there(name, BY_HAND[name], options.root)
        for name in names:
            news = [obtain(archive, options.root, options.base_url, options.keep) for archive in DATASETS.get(name, ())]
            print(f"{name}: complete in {options.root}" if any(news) else f"{name}: is there already, in {options.root}")
    except ArchiveError as error:
        return _fail(str(error))
    except OSError as error:
        place = _one_line(str(error.filename or options.root))
        return _fail(f"{place}: {error.strerror or error}; the same command goes on from here")
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def require_there(name: str, data: ByHand, root: Path) -> None:
    """Raise ArchiveError that says what to get, and where to put it, if some of it is not there yet."""
    missing = [place for place in data.holds if not (root / place).is_dir()]
    if missing:
        raise ArchiveError(
            f"{name} needs an account, so that it cannot be fetched from here: get {data.archives}, and unpack in {root} until "
            f"it has {', '.join(missing)}"
        )


def obtain(archive: Archive, root: Path, base_url: str | None, keep: bool) -> bool:
    """Download, check and unpack one archive, or what of that is not done yet. False if nothing was left to do.

    It is unpacked below `root`. `base_url` is a mirror's folder in place of the publisher's; with `keep` the archive stays.
    """
    from backbones.weights.download import locked

    # Of several processes one fetches, the others find it done.
    with locked(root / f".{archive.name}"):
        return _obtain_locked(archive, root, base_url, keep)


def _obtain_locked(archive: Archive, root: Path, base_url: str | None, keep: bool) -> bool:
    from backbones.weights.download import finish

    folder = root / "archives"
    file, part, done = (folder / f"{archive.name}{suffix}" for suffix in ("", ".part", ".done"))
    target = root / archive.unpack_to
    unpacked = target / archive.holds
    if done.exists() and unpacked.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{base_url.rstrip('/')}/{archive.name}" if base_url else archive.url
    # A file that someone put there is checked like one of ours.
    if not file.exists():
        with progress_bar(f"downloading {archive.name}") as report:
            fetch(url, part, report)
    with progress_bar(f"checking {archive.name}") as report:
        check(file if file.exists() else part, archive.md5, report)
    if not file.exists():
        finish(part, file)
    with progress_bar(f"unpacking {archive.name}") as report:
        unpack(file, target, report)
    if archive.cifar_batches:
        try:
            make_class_folders(target, target / "cifar-10-batches-bin")
        except (ValueError, IndexError):
            raise ArchiveError(f"{file} does not hold CIFAR-10's batches") from None
    if not unpacked.exists():
        raise ArchiveError(f"{file} is unpacked, but {unpacked} was not in it")
    done.touch()
    if not keep:
        file.unlink()
    return True


@contextmanager
def progress_bar(action: str) -> Iterator[ReportProgress]:
    """A progress bar on a terminal, a line elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(action, flush=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(action, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def fetch(url: str, part: Path, report: ReportProgress) -> None:
    """Download what `part` lacks. Raises ArchiveError; the part is kept."""
    from backbones.weights.download import DownloadError, download

    try:
        download(url, part, report)
    except DownloadError as error:
        raise ArchiveError(str(error)) from None


def check(file: Path, md5: str, report: ReportProgress) -> None:
    """Raises ArchiveError where the file's MD5 is another; a download of ours is then deleted, for it cannot be continued."""
    from backbones.weights.download import Digest, discard, mismatch

    fault = mismatch(file, Digest("md5", md5), report)
    if fault is None:
        return
    if file.suffix != ".part":
        raise ArchiveError(f"{fault}; delete it and run the command again")
    discard(file)
    raise ArchiveError(f"{fault}; it has been deleted, run the command again or try another --base-url")


def unpack(file: Path, folder: Path, report: ReportProgress) -> None:
    """Unpack a .zip or tar archive below `folder`, and nowhere else. Raises ArchiveError.

    Only files and folders are unpacked, no links or devices, and only what has a size and a number that such archives have.
    """
    if not hasattr(tarfile, "data_filter"):
        raise ArchiveError("unpacking safely needs Python 3.10.12, 3.11.4 or newer: update Python")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _unpack_zip(file, folder, report) if file.suffix == ".zip" else _unpack_tar(file, folder, report)
    except _DAMAGE as error:
        raise ArchiveError(f"cannot unpack {file}: {_one_line(str(error) or type(error).__name__)}") from None


# RuntimeError: a password is needed; NotImplementedError: an unknown compression. The others are a damaged archive's.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
    struct.error,
)


def _unpack_tar(file: Path, folder: Path, report: ReportProgress) -> None:
    size = _Size(file, folder)
    with tarfile.open(file) as archive:
        members = []
        for member in archive:  # one by one: to list them all is to decompress everything
            if not (member.isfile() or member.isdir()):
                raise ArchiveError(f"cannot unpack {file}: '{_one_line(member.name)}' is a link or a device, not a file")
            size.add(member.size)
            members.append(member)
        size.require_space()
        done = 0
        for member in members:
            archive.extract(member, folder, filter="data")
            done += member.size
            report(done, size.bytes)


def _unpack_zip(file: Path, folder: Path, report: ReportProgress) -> None:
    size = _Size(file, folder)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise ArchiveError(f"cannot unpack {file}: '{_one_line(str(name))}' would land outside {folder}")
            size.add(member.file_size)
        size.require_space()
        done = 0
        for member in members:
            archive.extract(member, folder)
            done += member.file_size
            report(done, size.bytes)


class _Size:
    """What an archive unpacks to, so far: bounded, for a small file can hold terabytes of zeros."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.file, self.folder = file, folder
        self.bytes, self.members = 0, 0
        # Annotations in JSON shrink to a fifth, images hardly.
        self.most_bytes = 2**26 + MOST_EXPANSION * file.stat().st_size

    def add(self, num_bytes: int) -> None:
        """Count one more file. Raises ArchiveError where there are too many, or too many bytes."""
        self.bytes += num_bytes
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise ArchiveError(f"cannot unpack {self.file}: it holds more than {MOST_MEMBERS} files, which no data set has")
        if self.bytes > self.most_bytes or num_bytes < 0:
            raise ArchiveError(
                f"cannot unpack {self.file}: it would become more than {self.most_bytes / 1e9:.4g} GB, "
                f"over {MOST_EXPANSION} times its size, as no data set does"
            )

    def require_space(self) -> None:
        """Raises ArchiveError where the disk has no room for all of it."""
        free = shutil.disk_usage(self.folder).free
        if self.bytes > free:
            raise ArchiveError(
                f"{self.file} needs {self.bytes / 1e9:.3f} GB to unpack, {self.folder} has {free / 1e9:.3f} GB: make room"
            )


def _one_line(text: str) -> str:
    """Text out of an archive or a path, for a terminal."""
    from backbones.errors import printable

    return printable(text[:200])


def make_class_folders(folder: Path, batches: Path) -> None:
    """CIFAR-10's batches of (label, 3 x 32 x 32 pixels) -> folder/{train,test}/CLASS/NNNNN.png, as `pretrain` reads them."""
    import cv2
    import numpy as np

    names = (batches / "batches.meta.txt").read_text(encoding="utf-8").split()
    for split, pattern in (("train", "data_batch_?.bin"), ("test", "test_batch.bin")):
        for name in names:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        records = np.concatenate([np.fromfile(file, np.uint8) for file in sorted(batches.glob(pattern))]).reshape(-1, 3073)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for index, (label, image) in enumerate(zip(records[:, 0], images, strict=True)):
            _, data = cv2.imencode(".png", image[..., ::-1])
            (folder / split / names[label] / f"{index:05d}.png").write_bytes(data.tobytes())


if __name__ == "__main__":
    sys.exit(main())
