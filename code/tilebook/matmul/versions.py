"""What older versions of Triton do to this chapter's kernels on Hopper."""

import re

import triton

WRONG_FROM, RIGHT_FROM = (3, 4, 0), (3, 7, 1)
"""Versions whose `tl.dot(tl.trans(x), y)`, with x in registers, was seen to be wrong:
the first of them, and the first that was right again."""
CLEAN_FROM = (3, 7, 0)
"""The first version whose tiles of 256 columns don't wait for one another."""


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version such as "3.7.1"."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def suspect(version: str = triton.__version__) -> bool:
    """Whether a Triton is one of those whose turned operands were wrong on Hopper.

    Args:
        version: of Triton, such as "3.7.1".

    Returns:
        True from `WRONG_FROM` on and before `RIGHT_FROM`.
    """
    return WRONG_FROM <= numbers(version) < RIGHT_FROM


def serialises(version: str = triton.__version__) -> bool:
    """Whether a Triton makes large tiles of `ordered` wait; see `ordered.waits`.

    Args:
        version: of Triton.

    Returns:
        True before `CLEAN_FROM`.
    """
    return numbers(version) < CLEAN_FROM
