"""What a program around this library has set, and what its threads and processes share: modes of networks, defaults of torch.

Networks are put in evaluation mode for a while, also by several threads at once; tensors are float32 on the CPU where nothing
else is said, whatever the program's defaults are; a forked process does not wait for threads that only its parent has.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

logger = logging.getLogger(__name__)


@contextmanager
def restored_modes(network: nn.Module) -> Iterator[None]:
    """When the block ends, each module of the network is again in the mode, training or evaluation, that it had before."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Evaluations:
    """Which modules are in evaluation mode for a while, and how many blocks of code, in any thread, use them so."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    def enter(self, networks: Sequence[nn.Module]) -> list[nn.Module]:
        """Put the modules in evaluation mode; returns those that `leave` has to know."""
        with self.lock:
            modules = [module for network in networks for module in network.modules()]
            held = [module for module in modules if module.training or (self.users and module in self.users)]
            for module in held:
                self.users[module] = self.users.get(module, 0) + 1
                module.training = False
        return held

    def leave(self, held: Sequence[nn.Module]) -> None:
        """The last user of a module puts it back in training mode."""
        with self.lock:
            for module in held:
                self.users[module] -= 1
                if self.users[module] == 0:
                    del self.users[module]
                    module.training = True

    def forget(self) -> None:
        """In a forked process: the other threads do not exist here, and one of them may have held the lock."""
        self.lock = threading.Lock()
        for module in self.users:
            module.training = True
        self.users.clear()


# One for the process, as networks may share modules, and are copied and pickled, which a lock cannot be.
_evaluations = _Evaluations()


@contextmanager
def evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the networks are in evaluation mode; afterwards each of their modules is in the mode that it had before.

    Several threads may do so with the same networks at once: the first changes the mode, the last one changes it back.
    """
    held = _evaluations.enter(networks)
    try:
        yield
    finally:
        _evaluations.leave(held)


@contextmanager
def own_defaults(*, grad: bool = False) -> Iterator[None]:
    """Inside, this thread's new tensors are float32 on the CPU where nothing else is said, and no inference tensors.

    That is torch's own default, so that in most programs this does nothing. With `grad` gradients are computed, whatever the
    program has set.
    """
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if grad and not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.get_default_dtype() != torch.float32:
            stack.enter_context(_Float32())
        yield


# Functions whose result has the default type; and those for which that is so where they get Python's own numbers.
_OF_DEFAULT_TYPE: frozenset[Callable[..., Any]] = frozenset(
    {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace}
)
_OF_NUMBERS: frozenset[Callable[..., Any]] = frozenset(
    {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full, torch.arange}
)


class _Float32(TorchFunctionMode):
    """`torch.set_default_dtype(torch.float32)` for one thread."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if options.get("dtype") is not None or (func not in _OF_DEFAULT_TYPE and func not in _OF_NUMBERS):
            return func(*args, **options)
        if func in _OF_DEFAULT_TYPE:
            return func(*args, **{**options, "dtype": torch.float32})
        found = func(*args, **options)
        given = any(hasattr(value, "dtype") for value in (*args, *options.values()))
        if given or not isinstance(found, Tensor) or found.dtype != torch.get_default_dtype():
            return found
        return func(*args, **{**options, "dtype": torch.float32})


def is_eager() -> bool:
    """Whether torch computes at once: no graph is recorded, and no function transformed (`torch.func`)."""
    recording = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not recording and torch._C._functorch.maybe_current_level() is None


class _Fork:
    """Whether this process was forked, and nobody has been told yet."""

    happened = False


def one_thread_after_fork() -> None:
    """Let torch use one thread in a forked process: the threads that it would wait for exist in the parent only.

    Without this, the first large computation never ends. Logs what to do instead, once.
    """
    if _Fork.happened:
        _Fork.happened = False
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
            logger.warning(
                "this process was forked, and torch's threads are not: it computes with one thread. To use more, start "
                'processes with multiprocessing.get_context("spawn")'
            )


def _after_fork() -> None:
    _Fork.happened = True
    _evaluations.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
