"""How many bytes are on their way: what a kernel's registers leave room for."""

import triton

from tilebook import device

LOAD_BYTES = 16
PROGRAMS = 32
"""That an SM takes at most; the same from compute capability 7.0 to 10.0, but for 8.6
and 8.9, which take fewer."""


def threads(registers: int, num_warps: int) -> int:
    """Threads of a kernel that live on an SM at a time, as far as registers decide.

    Args:
        registers: of a thread, as the compiled kernel says.
        num_warps: warps in a program, which starts whole or not at all.

    Returns:
        At most what an SM takes.
    """
    here = device.current()
    each = num_warps * (here.warp_size or 32)
    # Registers are dealt out to a thread by eights.
    held = triton.cdiv(registers, 8) * 8
    programs = min((here.registers_per_sm or 2**16) // (held * each), PROGRAMS)
    return min(programs * each, here.threads_per_sm or 2048)


def kib(threads: int, loads: int) -> float:
    """KiB on their way to an SM if every thread waits for all its loads at once.

    Args:
        threads: that live on it.
        loads: of 16 bytes that each has on their way.
    """
    return threads * loads * LOAD_BYTES / 1024
