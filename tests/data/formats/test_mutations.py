"""Label files with anything in any place: read, or refused with a DatasetError of one line, never anything else."""

import json
import random
from pathlib import Path

import pytest

from detection.config import FolderSource
from detection.data.catalog import read_sources
from detection.data.classes import ClassMap
from detection.data.faults import Faults
from detection.data.formats.recognise import recognise
from detection.errors import DatasetError
from tests.data.formats.exports import EXPORTS, PLAIN
from tests.data.pictures import CLASSES
from tests.fuzz.mutations.case import paths, with_raw
from tests.fuzz.values import BROKEN_WORDS, JSON_VALUES, break_bytes

WORDS = (*BROKEN_WORDS, "", "NaN", "9" * 5000, "1e300", "\x00", '"', "家")
ANY_CLASS = ClassMap(CLASSES, others="drop")


def read(source: FolderSource, collect: bool) -> Faults:
    """Read a source; all that is said is one line each."""
    faults = Faults(collect=collect)
    try:
        for record in read_sources([source], ANY_CLASS, faults):
            assert record.boxes.isfinite().all() and record.areas.isfinite().all()
    except DatasetError as error:
        faults.errors.append(str(error))
    lines = faults.errors + faults.summary()
    assert not any("\n" in line or len(line) > 1000 for line in lines), lines
    return faults


def try_file(source: FolderSource, file: Path, content: bytes, collect: bool) -> None:
    """Read with another content of a label file, as what it was, and as what it is then recognised as."""
    file.write_bytes(content)
    read(source, collect)
    try:
        recognise(file)
    except DatasetError as error:
        assert "\n" not in str(error)


def label_file(folder: Path) -> Path:
    """The first label file of an export."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".json", ".xml", ".csv")]
    return next(file for file in files if "class" not in file.name)


@pytest.mark.parametrize("kind", EXPORTS)
def test_broken_bytes(kind, tmp_path):
    key, write = EXPORTS[kind]
    write(tmp_path)
    file, source, random_ = label_file(tmp_path), FolderSource(format=key, root=tmp_path), random.Random(kind)
    content = file.read_bytes()
    for number in range(60):
        try_file(source, file, break_bytes(content, random_), collect=number % 2 == 0)


@pytest.mark.parametrize("kind", [kind for kind in EXPORTS if not any(word in kind for word in ("CSV", "CVAT", "Open"))])
def test_any_value_in_any_place_of_json(kind, tmp_path):
    key, write = EXPORTS[kind]
    write(tmp_path)
    file, source, random_ = label_file(tmp_path), FolderSource(format=key, root=tmp_path), random.Random(kind)
    content = json.loads(file.read_text())
    places = list(paths(content, depth=12))
    for number in range(250):
        mutated = with_raw(content, random_.choice(places), random_.choice(JSON_VALUES), json.dumps)
        try_file(source, file, mutated.encode("utf-8", "surrogatepass"), collect=number % 2 == 0)


@pytest.mark.parametrize("kind", [kind for kind in EXPORTS if any(word in kind for word in ("CSV", "CVAT", "Open"))])
def test_any_word_in_any_place_of_text(kind, tmp_path):
    key, write = EXPORTS[kind]
    write(tmp_path)
    file, source, random_ = label_file(tmp_path), FolderSource(format=key, root=tmp_path), random.Random(kind)
    separator = '"' if "CVAT" in kind else ","
    words = file.read_text().split(separator)
    for number in range(150):
        index, word = (
            random_.randrange(len(words)),
            random_.choice((*BROKEN_WORDS, "", "NaN", "9" * 5000, "1e300", "\x00", '"', "家")),
        )
        mutated = separator.join([*words[:index], word, *words[index + 1 :]])
        try_file(source, file, mutated.encode("utf-8", "surrogatepass"), collect=number % 2 == 0)


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_unbroken_file_has_no_fault(kind, tmp_path):
    key, write = EXPORTS[kind]
    write(tmp_path)
    faults = read(FolderSource(format=key, root=tmp_path), collect=True)
    assert not faults.errors and not faults.notes and len(PLAIN) == 4
