"""What a loader's worker process does first."""

from __future__ import annotations

import signal

import cv2
import torch


def start_worker(worker: int) -> None:
    """One thread, as the processes are what runs in parallel; Ctrl-C is for the main process, which ends the workers."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
