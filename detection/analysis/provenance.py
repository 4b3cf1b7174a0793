"""Where and when a measurement was made: numbers of different machines or versions cannot be compared."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import torch

from detection.weights.checkpoint import software_versions


def provenance(device: torch.device, precision: torch.dtype | None) -> dict[str, str]:
    """`hardware`, `date` and `commit`, as the files of docs/results hold them.

    `precision` is the autocast dtype, None for fp32.
    """
    versions = software_versions()
    arithmetic = "fp32" if precision is None else "bf16 autocast"
    threads = torch.get_num_threads()
    machine = [f"{threads} thread{'s' if threads > 1 else ''} of {cpu_name()}", f"{platform.system()} {platform.machine()}"]
    if device.type == "cuda":
        machine.insert(0, torch.cuda.get_device_name(device))
    return {
        "hardware": f"{', '.join(machine)}; torch {versions['torch']}, {arithmetic}",
        "date": datetime.date.today().isoformat(),
        "commit": versions["commit"][:7] if "commit" in versions else f"resdet {versions['resdet']}",
    }


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
