"""The fixtures of the tests of reading and loading data."""

from pathlib import Path

import pytest

from detection.data.catalog import Dataset, load_dataset
from tests.browser import browser, open_page
from tests.data.pictures import CLASSES, Picture, Thing, voc_source, write_devkit

__all__ = ["browser", "dataset", "open_page"]

MANY = [Picture(n, (30, 44) if n % 3 else (44, 30), (Thing("cat", (3, 4, 20, 25), n % 5 == 0),)) for n in range(1, 14)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Thirteen pictures, wide and high, one object each, some of them difficult."""
    write_devkit(tmp_path, MANY)
    return load_dataset([voc_source(tmp_path)], CLASSES)
