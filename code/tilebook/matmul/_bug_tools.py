"""The tools that find the chapter's planted bugs, and the operands they are met on."""

import re

import torch

from tilebook import compile_only, testing
from tilebook.parallel.bugs import Bug, Case, Tool
from tilebook.parallel.bugs.inputs import normal
from tilebook.testing.precision import round_to

LENGTHS = (32, 64, 128, 256)
"""Terms of the sums that `GROWTH` tries."""
MMA = re.compile(r"(?:wgmma\.mma_async|mma)\.sync\S*?\.f32\.(\w+)\.(\w+)\S*")
"""A tensor core's instruction in PTX, and the types of its operands."""


def whole(*shape: int) -> torch.Tensor:
    """Small whole numbers in float32, whose products and sums are exact in any order.

    Args:
        shape: of the tensor.

    Returns:
        It, on the device that is here.
    """
    return normal(*shape).mul(2).round()


def as_tf32(x: torch.Tensor) -> torch.Tensor:
    """Round float32 to what a tensor core reads of it: 11 significant bits.

    Args:
        x: any float32 tensor.

    Returns:
        The nearest numbers that TF32 has, in float32, of the same shape.
    """
    rounded = torch.from_numpy(round_to(x.cpu().numpy(), "tf32"))
    return rounded.to(x.device, x.dtype)


def _complaint(bug: Bug, out: torch.Tensor, *inputs: torch.Tensor) -> str | None:
    """What assert_close says of an output; its length is the number of terms."""
    length = inputs[0].shape[1]
    try:
        testing.assert_close(out, bug.truth(*inputs), length=length)
    except AssertionError as error:
        return str(error)
    return None


def _multiplied(bug: Bug, case: Case) -> str | None:
    inputs = bug.inputs()
    plan = case.launch(*inputs)
    ptx = compile_only.compile(case.kernel, *plan.args, target="sm_90", **plan.meta).ptx
    found = [unit for unit in MMA.finditer(ptx) if "tf32" in unit.groups()]
    if not found:
        return None
    complaint = _complaint(bug, case.run(*map(as_tf32, inputs)), *inputs)
    return (
        f"for sm_90 there are {len(found)} of {found[0][0]}\n"
        f"with operands rounded to tf32, {complaint}"
    )


def _twice(bug: Bug, case: Case) -> str | None:
    inputs = bug.inputs()
    try:
        testing.deterministic(lambda: case.run(*inputs), 2)
    except AssertionError as error:
        return str(error)
    return None


def _poisoned(bug: Bug, case: Case) -> str | None:
    a, b = bug.friendly()
    b = b.clone()
    b[a.shape[1] :] = float("nan")
    return _complaint(bug, case.run(a, b), a, b)


def _lengths(bug: Bug, case: Case) -> str | None:
    a, b = bug.inputs()
    for k in LENGTHS:
        part = a[:, :k].contiguous(), b[:k]
        if complaint := _complaint(bug, case.run(*part), *part):
            return f"k = {k}: {complaint}"
    return None


OPERANDS = Tool("the machine code, compile_only.compile()", _multiplied)
REPEATS = Tool("the same call twice, testing.deterministic()", _twice)
BEHIND = Tool("NaN in the rows that don't count", _poisoned)
GROWTH = Tool("ever longer sums, testing.assert_close(length=k)", _lengths)
