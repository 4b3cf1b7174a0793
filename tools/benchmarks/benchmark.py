"""One benchmark: several implementations of the same work, and what comes of measuring them.

A round measures each implementation once, one after the other, so that a busy moment of the machine meets all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[], object]
"""What is timed: a call does the work once. Of a dict that it returns, such as a profile, the last round's is kept."""

Setup = Callable[[], Work]
"""What is not timed: it prepares the work, in the process that measures it. A module's function, or a `partial` of one."""

OURS = "ours"
"""The first word in the names of this project's implementations, here and in docs/results/*.json."""

REFERENCES = ("torchvision", "plain loop")
"""First words in the names of the implementations to compare with that use torch without this package."""

PEAK = "matrix product"
"""First words in the names of what shows the machine's limit; their last word is the precision, as in all names."""


@dataclass
class Result:
    """What an implementation needed: seconds in each round, peak memory of its processes or GPU, arithmetic."""

    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0  # 0 where it is not known
    gigaflops: float = 0.0  # of doing the work once, as torch counts the calls of matrix products and convolutions
    images: int = 0  # of doing the work once; 0 where there are none to count
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Median seconds over the rounds."""
        return statistics.median(self.seconds)

    @property
    def speed(self) -> float:
        """Images per second, or how often per second the work is done where there are no images."""
        return max(self.images, 1) / self.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "median_seconds": round(self.median, 4),
            "seconds": [round(value, 4) for value in self.seconds],
            "peak_mb": round(self.peak_mb),
            **({"images_per_second": round(self.speed, 3)} if self.images else {}),
            **({"gflop_per_second": round(self.gigaflops / self.median, 1)} if self.gigaflops else {}),
            **({"numbers": self.numbers} if self.numbers else {}),
        }


@dataclass(frozen=True)
class Benchmark:
    """What is done, and its implementations by name: a setup, or a list of them for processes that work together."""

    title: str
    implementations: Mapping[str, Setup | Sequence[Setup]]
    images: int = 0  # of doing the work once, in each process
    threads: int | None = None  # of each process; None: as many as this one uses
    count_flops: bool = True
    measure_memory: bool = True  # False where the processes start others that do the work
    repeats: int = 1  # how often a round does the work: more where it takes milliseconds
    settings: Mapping[str, Any] = field(default_factory=dict)  # what tells this one from others of its part, for a plot
    summarize: Callable[[Mapping[str, Result]], dict[str, float]] | None = None  # figures that follow from all results


def ratios(results: Mapping[str, Result]) -> dict[str, dict[str, dict[str, float]]]:
    """ratios["ours bf16"]["torchvision bf16"]: how many times as fast ours is, and its memory as a share of the other's.

    The machine's limit is other work, and left out.
    """
    own = {name: result for name, result in results.items() if name.split()[0] == OURS}
    others = {name: result for name, result in results.items() if name not in own and not name.startswith(PEAK)}
    return {
        name: {
            other: {
                "speed": round(mine.speed / result.speed, 2),
                "memory": round(mine.peak_mb / max(result.peak_mb, 1e-9), 2),
            }
            for other, result in others.items()
        }
        for name, mine in own.items()
    }


def shares_of_peak(results: Mapping[str, Result]) -> dict[str, float]:
    """For each implementation with counted FLOPs: its rate over that of the matrix product of the same precision."""
    rates = {name: result.gigaflops / result.median for name, result in results.items()}
    peaks = {name.split()[-1]: rate for name, rate in rates.items() if name.startswith(PEAK)}
    return {
        name: round(rate / peaks[name.split()[-1]], 3)
        for name, rate in rates.items()
        if rate and peaks.get(name.split()[-1]) and not name.startswith(PEAK)
    }
