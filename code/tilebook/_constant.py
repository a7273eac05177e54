"""Marking functions for torch.compile without importing its compiler."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def constant(fn: Function) -> Function:
    """Say that torch.compile may take a function's result as it is at tracing time.

    As `torch.compiler.assume_constant_result` does, for which PyTorch imports all of
    TorchDynamo: longer than everything else that this package imports takes.

    Args:
        fn: takes no tensors, and gives the same result each time.

    Returns:
        The function itself, marked.
    """
    fn.__dict__["_dynamo_marked_constant"] = True
    return fn
