"""Records in flat arrays: what comes out is what went in."""

import torch

from detection.data.packing import PackedRecords
from detection.data.transforms import make_target


def test_packed_records_are_the_records(dataset):
    packed = PackedRecords.pack(dataset.records)
    for index, record in enumerate(dataset.records):
        assert packed.file(index) == str(record.file) and packed.size_hw(index) == record.size_hw
        found, expected = packed.target(index), make_target(record)
        assert torch.equal(found.boxes, expected.boxes) and torch.equal(found.ignored, expected.ignored)
        assert torch.equal(found.labels, expected.labels)
