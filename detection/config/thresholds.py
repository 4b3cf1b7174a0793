"""Score thresholds: one number for all classes, or one for each of some classes by its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from backbones.errors import first_names, printable, shorten
from detection.errors import ConfigError, did_you_mean

DEFAULT_THRESHOLD = 0.05
"""Of `test.score_threshold`, and of the classes that a mapping leaves out."""


def check_threshold_names(
    thresholds: float | Mapping[str, float], class_names: Collection[str], what: str = "test.score_threshold"
) -> None:
    """Raise ConfigError where a mapping names what is no class; `what` says in it who names it."""
    known = frozenset(class_names)
    unknown = next((name for name in thresholds if name not in known), None) if isinstance(thresholds, Mapping) else None
    if unknown is not None:
        what = printable(what)
        classes = f"the classes are {first_names(list(class_names))}"
        raise ConfigError(f"{what} names {shorten(unknown)}, which is no class{did_you_mean(unknown, class_names, classes)}")


def thresholds_of_classes(
    thresholds: float | Mapping[str, float],
    class_names: Sequence[str],
    default: float = DEFAULT_THRESHOLD,
    what: str = "test.score_threshold",
) -> tuple[float, ...]:
    """The threshold of each of K classes, in the order of their names; `default` for those that a mapping leaves out.

    Raises ConfigError, saying `what`, where a mapping names what is no class.
    """
    check_threshold_names(thresholds, class_names, what)
    if not isinstance(thresholds, Mapping):
        return (thresholds,) * len(class_names)
    return tuple(thresholds.get(name, default) for name in class_names)
