"""The exports of labelling programs: each is recognised, and gives the pictures as they are."""

from pathlib import Path

import pytest

from detection.config import FolderSource
from detection.data.catalog import load_dataset
from detection.data.formats.recognise import recognise
from tests.data.formats.exports import EXPORTS, ONLY_OBJECTS, PLAIN
from tests.data.pictures import CLASSES


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_is_recognised_and_read_as_it_was_drawn(kind, tmp_path):
    key, write = EXPORTS[kind]
    write(tmp_path)
    recognised = recognise(tmp_path)
    assert {source.format for sources in recognised.splits.values() for source in sources} == {key}
    check(load_dataset(recognised.sources(), CLASSES, strict=True), kind)
    # Asked for by its format, it is found without further keys, too.
    check(load_dataset([FolderSource(format=key, root=tmp_path)], CLASSES, strict=True), kind)


def check(dataset, kind):
    expected = [picture for picture in PLAIN if picture.things or kind not in ONLY_OBJECTS]
    stems = [Path(record.image_id).stem.removeprefix("frame_") for record in dataset.records]
    assert stems == [picture.stem for picture in expected]
    for record, picture in zip(dataset.records, expected, strict=True):
        assert record.size_hw == picture.size_hw
        assert [CLASSES[label] for label in record.labels] == [thing.name for thing in picture.things]
        for box, thing in zip(record.boxes.tolist(), picture.things, strict=True):
            assert box == pytest.approx(thing.box, abs=0.01)
