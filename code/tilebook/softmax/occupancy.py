"""How many programs live on a multiprocessor at a time: the least of four limits."""

from tilebook import device

# A multiprocessor keeps this much shared memory of each program for itself.
RESERVED = 1024
MOST_PROGRAMS = 32
# What an H100 has, for where kernels are only compiled.
SMS = 132
REGISTERS = 65536
THREADS = 2048
SHARED = 228 * 1024

# Multiprocessors where kernels are interpreted: two, so that programs walk.
PRETENDED = 2


def fits(num_warps: int, registers: int, shared: int = 0) -> int:
    """Count the programs that fit on one multiprocessor of this process's GPU.

    Args:
        num_warps: of a program.
        registers: of a thread.
        shared: bytes of shared memory of a program.

    Returns:
        What registers, threads, shared memory and the number of programs allow, at
        least one. An H100's limits where there is no GPU.
    """
    here = device.current()
    threads = num_warps * (here.warp_size or 32)
    # Registers are dealt out to threads by eights.
    each = -(-registers // 8) * 8
    limits = [
        MOST_PROGRAMS,
        (here.registers_per_sm or REGISTERS) // (each * threads),
        (here.threads_per_sm or THREADS) // threads,
    ]
    if shared:
        limits.append((here.shared_memory_per_sm or SHARED) // (shared + RESERVED))
    return max(1, min(limits))


def programs(rows: int, per_sm: int) -> int:
    """How many programs to launch so that all live at once, and none is idle.

    Args:
        rows: rows to be shared out.
        per_sm: programs on a multiprocessor.

    Returns:
        At least one and at most `rows`, as long as there are rows.
    """
    return max(1, min(rows, per_sm * (device.current().sms or PRETENDED)))
