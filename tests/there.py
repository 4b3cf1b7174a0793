"""For values that may be None in general, and must not be in a test."""

from typing import TypeVar

T = TypeVar("T")


def there(value: T | None) -> T:
    """The value, which is there."""
    assert value is not None
    return value
