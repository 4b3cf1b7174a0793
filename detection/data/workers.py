"""What each worker process of a loader does at its start."""

from __future__ import annotations

import os
import signal

import cv2
import torch


def start_worker(worker: int) -> None:
    """Use one thread, as the processes run in parallel; ignore Ctrl-C, which the main process handles: it ends the workers."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        # torchrun, `timeout` and schedulers signal the whole process group; the main process needs its workers to finish
        # the step that it saves. A worker whose main process is gone ends by itself.
        os.setpgid(0, 0)
