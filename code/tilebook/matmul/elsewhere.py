"""What the chapter's kernels compile to for GPUs that aren't at hand, and what fits."""

from typing import NamedTuple

import pandas as pd

from tilebook.compile_only import Artefact
from tilebook.matmul import described, ordered, persistent, tile
from tilebook.matmul.evidence import Launch, first, launched
from tilebook.matmul.fitting import Config
from tilebook.softmax.occupancy import RESERVED

PORTABLE = Config(128, 128, 64, 8, 3)
"""A tile that every target has room for."""
KERNELS = {
    "tile": (tile, None),
    "ordered": (ordered, PORTABLE),
    "persistent": (persistent, PORTABLE),
    "described": (described, described.Config(*PORTABLE[:5])),
}
"""Module and configuration by name."""
LARGE = Config(128, 256, 64, 8, 3)
"""The tile that `ordered` takes for a large product on Hopper."""


class Limits(NamedTuple):
    """What a multiprocessor has for the programs that live on it."""

    registers: int
    """Of 32 bits."""
    shared: int
    """Bytes of shared memory."""
    largest: int
    """Bytes of it that one program may have."""
    warps: int
    """That it keeps track of."""
    lanes: int = 32
    """Threads of a warp."""
    reserved: int = RESERVED
    """Bytes of shared memory that each program takes besides."""
    columns: int = 0
    """Of tensor memory; 0 where there is none."""


_KIB = 1024
LIMITS = {
    "sm_80": Limits(65536, 164 * _KIB, 163 * _KIB, 64),
    "sm_90": Limits(65536, 228 * _KIB, 227 * _KIB, 64),
    "sm_100": Limits(65536, 228 * _KIB, 227 * _KIB, 64, columns=512),
    # Four units of 512 registers for each of 64 lanes, and eight warps each.
    "gfx942": Limits(131072, 64 * _KIB, 64 * _KIB, 32, lanes=64, reserved=0),
}
"""By target, as the vendors' tables have it."""


def warps(artefact: Artefact) -> int:
    """Count the warps of a kernel that live on a multiprocessor at a time.

    Args:
        artefact: compiled for one of `LIMITS`.

    Returns:
        What registers, shared memory, tensor memory and the number of warps allow, in
        whole programs; 0 if not even one fits.
    """
    has, made = LIMITS[artefact.target], artefact.evidence
    if made.shared_bytes > has.largest:
        return 0
    each = artefact.metadata["num_warps"]
    # Registers are dealt out to threads by eights.
    of_a_warp = -(-made.registers // 8) * 8 * has.lanes
    programs = [has.registers // (of_a_warp * each), has.warps // each]
    if made.shared_bytes:
        programs.append(has.shared // (made.shared_bytes + has.reserved))
    if columns := artefact.metadata.get("tmem_size"):
        programs.append(has.columns // columns)
    return min(programs) * each


def row(artefact: Artefact) -> dict[str, object]:
    """Describe a compiled kernel in a line of a table.

    Args:
        artefact: compiled for one of `LIMITS`.

    Returns:
        Its matrix instruction; `warps`; what brings operands, copies past the
        registers, TMA loads and loads into registers by width in bits; bytes of shared
        memory; registers of a thread.
    """
    made = artefact.evidence
    return {
        "unit": ", ".join(made.mma),
        "warps": warps(artefact),
        "async copies": made.async_copies,
        "TMA": made.tma_loads,
        "loads": ", ".join(f"{n} x {bits}" for bits, n in made.global_loads.items()),
        "shared": made.shared_bytes,
        "registers": made.registers,
    }


_LEAST = min(LIMITS, key=lambda target: LIMITS[target].largest)


def wanted() -> list[tuple[Launch, str]]:
    """What `table` compiles.

    Returns:
        Launches, and the target of each.
    """
    found = [
        (launched(rung, config)[0], target)
        for rung, config in KERNELS.values()
        for target in LIMITS
    ]
    return [*found, (launched(ordered, LARGE)[0], _LEAST)]


def table() -> pd.DataFrame:
    """Compile four rungs for four targets, for bfloat16 and 4096 squared.

    Returns:
        What `row` says, by kernel and target; `ordered` besides with the tile that it
        takes on Hopper, on the target that has the least shared memory.
    """
    rows = {
        (name, target): row(first(rung, config, target=target))
        for name, (rung, config) in KERNELS.items()
        for target in LIMITS
    }
    rows["ordered, Hopper's tile", _LEAST] = row(first(ordered, LARGE, target=_LEAST))
    return pd.DataFrame.from_dict(rows, orient="index")
