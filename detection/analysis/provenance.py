"""Where and when a measurement was made: numbers of different machines or versions cannot be compared."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from detection.engine.precision import describe_precision
from detection.weights.checkpoint import software_versions


@dataclass(frozen=True)
class Provenance:
    """Machine, arithmetic, day and commit of a measurement."""

    machine: str  # GPU, threads and processor, operating system
    arithmetic: str  # version of torch and precision
    date: str  # ISO 8601
    commit: str  # seven digits, or the release where this is no git checkout

    def as_json(self) -> dict[str, str]:
        """Plain data as the files of docs/results hold it."""
        return {"hardware": f"{self.machine}; {self.arithmetic}", "date": self.date, "commit": self.commit}


def current_provenance(device: torch.device, precision: torch.dtype | None) -> Provenance:
    """The provenance of what is measured now on this machine's `device`; `precision` is the autocast dtype, None for fp32."""
    versions = software_versions()
    threads = torch.get_num_threads()
    machine = [f"{threads} thread{'s' if threads > 1 else ''} of {cpu_name()}", f"{platform.system()} {platform.machine()}"]
    if device.type == "cuda":
        machine.insert(0, torch.cuda.get_device_name(device))
    return Provenance(
        machine=", ".join(machine),
        arithmetic=f"torch {versions['torch']}, {describe_precision(precision)}",
        date=datetime.date.today().isoformat(),
        commit=versions["commit"][:7] if "commit" in versions else f"resdet {versions['resdet']}",
    )


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
