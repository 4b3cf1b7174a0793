"""What a thread makes ahead is what comes without it, in order, errors at their place; it ends with its caller."""

import threading
import time
from collections.abc import Iterator

import pytest

from detection.data.ahead import read_ahead
from detection.errors import DatasetError


def numbers(count: int, error: Exception | None = None, made: list[int] | None = None) -> Iterator[int]:
    try:
        for number in range(count):
            if made is not None:
                made.append(number)
            yield number
        if error is not None:
            raise error
    finally:
        if made is not None:
            made.append(-1)


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_all_items_in_order(limit: int) -> None:
    assert list(read_ahead(numbers(20), limit)) == list(range(20))
    assert list(read_ahead([None, 0, None], limit)) == [None, 0, None] and list(read_ahead([], limit)) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    found = list[int]()
    with pytest.raises(DatasetError, match="damaged"):
        for number in read_ahead(numbers(3, DatasetError("damaged"))):
            found.append(number)
    assert found == [0, 1, 2]


def test_items_are_made_while_the_caller_works_and_no_more_than_the_limit() -> None:
    made = list[int]()
    items = read_ahead(numbers(50, made=made), 2)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]  # one taken, two that wait, one that finds no room
    before = threading.active_count()
    items.close()
    assert made[-1] == -1 and threading.active_count() == before - 1


def test_a_thread_ends_with_its_items() -> None:
    before = threading.active_count()
    list(read_ahead(range(5)))
    assert threading.active_count() == before
