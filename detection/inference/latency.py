"""How long a detector takes for an image, on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from detection.report.reported import Latency


@dataclass
class LatencyMeter:
    """Adds up how long the calls of `predict` took; the first, which also warms up, counts only where it is the only one."""

    calls: list[tuple[int, float]] = field(default_factory=list)  # images, seconds

    def add(self, num_images: int, seconds: float) -> None:
        """A call with so many images took so long."""
        self.calls.append((num_images, seconds))

    def latency(self, device: torch.device) -> Latency | None:
        """The mean over the images; None without any."""
        counted = self.calls[1:] or self.calls
        num_images = sum(count for count, _ in counted)
        return Latency(sum(seconds for _, seconds in counted) / num_images, device_title(device)) if num_images else None


def device_title(device: torch.device) -> str:
    """What people call a device: "CPU, 2 threads", "NVIDIA H200"."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else device.type.upper()
