"""The losses of a log interval: means, and the exact culprit however late one looks."""

from __future__ import annotations

import pytest
import torch

from detection.engine.window import LogWindow


def add(window: LogWindow, step: int, far: float, near: float) -> None:
    window.add_losses(step, {"far": torch.tensor(far), "near": torch.tensor(near)}, [f"{step}.jpg"])


def test_means_over_micro_batches() -> None:
    window = LogWindow()
    for step in (1, 2, 3):
        add(window, step, far=step, near=0.5)
    assert window.means() == {}  # nothing is known before the device is asked
    assert window.check() is None
    assert window.means() == {"far": 2.0, "near": 0.5}
    assert window.check() is None  # asked again: nothing is counted twice
    assert window.means() == {"far": 2.0, "near": 0.5}


def test_the_first_bad_step_is_named_though_later_ones_are_bad_too() -> None:
    window = LogWindow()
    for step in range(1, 6):
        add(window, step, far=1.0, near=float("nan") if step >= 3 else 1.0)
        window.add_gradient_norm(step, torch.tensor(float("nan") if step >= 3 else 1.0))
    problem = window.check()
    assert problem is not None and problem.is_cause
    assert problem.message.startswith("step 3: loss 'near' is nan; images: 3.jpg.")


def test_a_bad_gradient_is_no_cause_and_names_all_images_of_its_step() -> None:
    window = LogWindow()
    add(window, 1, 1.0, 1.0)
    add(window, 2, 1.0, 1.0)
    window.add_losses(2, {"far": torch.tensor(1.0)}, ["other.jpg"])
    window.add_gradient_norm(2, torch.tensor(float("inf")))
    problem = window.check()
    assert problem is not None and not problem.is_cause
    assert "step 2: the norm of the gradient is inf; images: 2.jpg, other.jpg." in problem.message


def test_a_window_comes_back_from_a_checkpoint() -> None:
    window = LogWindow()
    add(window, 1, far=1.0, near=2.0)
    window.check()
    again = LogWindow.from_state(window.state())
    add(again, 2, far=3.0, near=4.0)
    again.check()
    assert again.means() == {"far": pytest.approx(2.0), "near": pytest.approx(3.0)}
