"""How programs that share a row tell one another what they found: see `cooperative`.

Two floats in one word of 64 bits are a letter: it is there whole or not at all, so that
no fence has to order anything. A word of zeros is no letter yet.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.softmax.occupancy import REGISTERS, SMS


class Config(NamedTuple):
    """How programs share rows."""

    block: int
    """Elements of the tile that covers a part, a power of two."""
    num_warps: int
    """Warps that share a part."""
    per_sm: int
    """Programs on a multiprocessor."""


def parts_of(n: int, block: int) -> int:
    """Count the parts of a row of n elements in tiles of `block`."""
    return -(-int(n) // block)


def most_parts() -> int:
    """Parts that a row may have: no program may hold two of one row at a time."""
    return device.current().sms or SMS


def registers(config: Config) -> int:
    """Registers that a thread may take, so that all programs have room at a time."""
    threads = 32 * config.num_warps * config.per_sm
    return min(
        (device.current().registers_per_sm or REGISTERS) // threads // 8 * 8, 255
    )


def all_at_once(config: Config) -> dict[str, int | bool]:
    """Options of a launch that starts all programs together, or fails."""
    return {"launch_cooperative_grid": True, "maxnreg": registers(config)}


def together(m: int, parts: int, per_sm: int) -> int:
    """How many programs to launch: as many as run at a time, if there is work.

    Args:
        m: rows.
        parts: of each.
        per_sm: programs on a multiprocessor.

    Returns:
        At least as many as a row has parts, or they would wait for ever.

    Raises:
        ValueError: so many don't run at a time.
    """
    most = per_sm * most_parts()
    if parts > most:
        raise ValueError(
            f"config must leave a row at most as many parts as programs run at a time, "
            f"{most}, got {parts}"
        )
    return min(m * parts, most)


def mailbox(m: int, parts: int, like: torch.Tensor) -> torch.Tensor:
    """Room for a letter of each part, empty."""
    return torch.zeros(m * parts, dtype=torch.int64, device=like.device)


def share_of(n: int, parts: int, vector: int) -> int:
    """Vectors of a part: as many in each, but for the last."""
    whole = -(-n // vector)
    return -(-whole // parts)


@triton.jit
def letter(top, total):
    """Two float32 in a word of 64 bits."""
    high = top.to(tl.int32, bitcast=True).to(tl.int64) << 32
    return high | (total.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def opened(words):
    """The two float32 of each word."""
    top = (words >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return top, words.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def collected(mail_ptr, parts, LANES: tl.constexpr):
    """Wait for the letters of a row's parts (LANES,); zeros past the last."""
    lanes = tl.arange(0, LANES)
    here = lanes < parts
    words = tl.load(mail_ptr + lanes, mask=here, other=0, volatile=True)
    while tl.sum((here & (words == 0)).to(tl.int32), axis=0) > 0:
        words = tl.load(mail_ptr + lanes, mask=here, other=0, volatile=True)
    return words
