"""What a loader's worker process does first."""

from __future__ import annotations

import os
import signal

import cv2
import torch


def start_worker(worker: int) -> None:
    """One thread, as the processes are what runs in parallel; Ctrl-C is for the main process, which ends the workers."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        # torchrun, `timeout` and schedulers signal the whole process group; the main process needs its workers to finish
        # the step that it saves. A worker whose main process is gone ends by itself.
        os.setpgid(0, 0)
