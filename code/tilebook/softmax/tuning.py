"""What a tuner tries on a card: ways to launch each rung, as plain data.

    python -m tilebook.softmax.tuning online 131072 bfloat16

times the candidates of a rung for one length of row, cold and in turn, and prints them
in order. What it finds goes into the constants of the rungs and of `choose`.
"""

import functools
import itertools
import sys
from types import ModuleType
from typing import Any

import torch

from tilebook import device, measure
from tilebook.softmax import (
    backward,
    backward_long,
    fused,
    online,
    persistent,
    ragged,
    resident,
    several,
    split,
)
from tilebook.softmax.evidence import compiled
from tilebook.softmax.operands import cover

MODULES: dict[str, ModuleType] = {
    "fused": fused,
    "several": several,
    "persistent": persistent,
    "ragged": ragged,
    "online": online,
    "split": split,
    "resident": resident,
    "backward": backward,
    "backward_long": backward_long,
}
GRADIENTS = ("backward", "backward_long")
WARPS = (1, 2, 4, 8, 16, 32)

# For each rung the fields of its Config that are free, and what they may be. What isn't
# named follows from the length of a row.
SPACE: dict[str, dict[str, tuple]] = {
    "fused": {"num_warps": WARPS},
    "several": {"rows": (1, 2, 4, 8, 16, 32), "num_warps": (1, 2, 4, 8)},
    "persistent": {
        "num_warps": WARPS,
        "stages": (0, 2, 3),
        "per_sm": (1, 2, 3, 4, 6, 8, 12, 16),
    },
    "ragged": {"num_warps": WARPS},
    "online": {
        "block": (2048, 4096, 8192, 16384, 32768),
        "num_warps": (4, 8, 16, 32),
        "per_sm": (1, 2, 4, 8),
        "back": (True, False),
        "keep": (True, False),
        "drop": (True, False),
    },
    "split": {
        "block": (4096, 8192, 16384),
        "num_warps": (4, 8, 16),
        "parts": (2, 4, 8, 16, 33, 66, 132, 264, 528),
        "keep": (True, False),
        "drop": (True, False),
    },
    "resident": {
        "chunk": (1024, 2048, 4096, 8192, 16384),
        "num_warps": (4, 8, 16, 32),
        "per_sm": (1, 2, 3, 4, 8),
    },
    "backward": {
        "rows": (1, 2, 4, 8),
        "num_warps": WARPS,
        "stages": (0, 2, 3),
        "per_sm": (1, 2, 3, 4, 6, 8, 12),
    },
    "backward_long": {
        "block": (2048, 4096, 8192, 16384, 32768),
        "num_warps": (4, 8, 16, 32),
        "per_sm": (1, 2, 4, 8),
        "keep": (True, False),
        "drop": (True, False),
    },
}
# Elements of a thread: fewer leave it without two loads of 16 bytes, more spill.
LEAST, MOST = 4, 64


def candidates(name: str, n: int, itemsize: int) -> list[Any]:
    """List the ways to launch a rung on rows of some length.

    Args:
        name: of the rung, one of `SPACE`.
        n: elements of a row.
        itemsize: bytes of one.

    Returns:
        Its configurations, what can't be sensible left out.
    """
    rung = MODULES[name]
    knobs = SPACE[name]
    found = []
    for values in itertools.product(*knobs.values()):
        picked = dict(zip(knobs, values, strict=True))
        config = _filled(name, n, itemsize, picked)
        if config is not None:
            found.append(rung.Config(**config))
    return list(dict.fromkeys(found))


def _filled(
    name: str, n: int, itemsize: int, picked: dict[str, Any]
) -> dict[str, Any] | None:
    """The whole of a configuration, or None if it isn't sensible."""
    threads = 32 * picked["num_warps"]
    if name == "resident":
        return _ring(n, itemsize, picked)
    if "block" not in picked:
        vector = 16 // itemsize if name == "ragged" else 1
        picked["block"] = cover(max(n // vector * vector, vector))
    walks = name in ("persistent", "backward")
    if walks and not picked["stages"]:
        if name == "backward":
            # A tile per program: how many fit is the hardware's business.
            picked["per_sm"] = 0
    elif name == "backward":
        picked["rows"] = 1
    each = picked["block"] * picked.get("rows", 1) // threads
    if not LEAST <= each <= MOST and not (each < LEAST and threads == 32):
        return None
    if picked["block"] > 2 * cover(n):
        return None
    if picked.get("per_sm", 1) * threads > 2048:
        return None
    shared = (picked.get("stages", 0) - 1) * picked["block"] * itemsize
    shared *= 2 if name == "backward" else 1
    if picked.get("per_sm", 1) * shared > 224 * 1024:
        return None
    return picked


def _ring(n: int, itemsize: int, picked: dict[str, Any]) -> dict[str, Any] | None:
    chunk, per_sm = picked["chunk"], picked["per_sm"]
    room = resident.SHARED // per_sm // (chunk * itemsize)
    whole = n // chunk
    if not whole or room < 2:
        return None
    slots = min(room, max(2, 4 * whole))
    left = n - min(whole, slots) * chunk
    tail = cover(-(-left // chunk)) if left else 0
    each = chunk // (32 * picked["num_warps"])
    vector = 16 // itemsize
    if tail > resident.TAIL or not vector <= each <= MOST:
        return None
    if per_sm * picked["num_warps"] > 64:
        return None
    return picked | {"slots": slots, "tail": tail}


def without_spills(
    name: str,
    n: int,
    dtype: torch.dtype,
    configs: list[Any],
    target: str = "sm_90",
) -> list[Any]:
    """Leave out what the compiler can't keep in registers.

    Args:
        name: of the rung.
        n: elements of a row.
        dtype: of the elements.
        configs: its candidates.
        target: as for `compile_only.compile`.

    Returns:
        Those whose kernels spill nothing.
    """
    return [
        config
        for config in configs
        if not any(
            artefact.evidence.spill_store_bytes
            for artefact in compiled(
                MODULES[name], 8192, n, dtype, target, config=config
            )
        )
    ]


def best(
    bench: measure.Bench, name: str, m: int, n: int, dtype: torch.dtype
) -> list[tuple[Any, float]]:
    """Time the candidates of a rung.

    Args:
        bench: measures.
        name: of the rung.
        m: rows.
        n: elements of a row.
        dtype: of the elements.

    Returns:
        Configurations with milliseconds, cold, the fastest first.
    """
    rung = MODULES[name]
    many = candidates(name, n, dtype.itemsize)
    x = torch.randn(m, n, device=device.torch_device()).to(dtype)
    out = torch.empty_like(x)
    operands = (x.softmax(-1), x, out) if name in GRADIENTS else (x, out)
    calls = {
        config: functools.partial(rung.launch_as, config, *operands)
        for config in without_spills(name, n, dtype, many)
    }
    timings = bench.interleaved(
        {c: functools.partial(bench.time_cold, call) for c, call in calls.items()}
    )
    return sorted(((c, t.ms) for c, t in timings.items()), key=lambda pair: pair[1])


def main(name: str, n: str, dtype: str) -> None:
    """Print the fastest ways to launch a rung; see the module.

    Args:
        name: of the rung.
        n: elements of a row.
        dtype: of the elements, such as "bfloat16".
    """
    kind = getattr(torch, dtype)
    m = max(1, 2**26 // int(n))
    bench = measure.Bench("softmax", budget=measure.Budget(3, 0.02))
    reads = 3 if name in GRADIENTS else 2
    for config, ms in best(bench, name, m, int(n), kind)[:20]:
        gbps = reads * m * int(n) * kind.itemsize / ms / 1e6
        print(f"{gbps:8.0f} GB/s  {config}")


if __name__ == "__main__":
    main(*sys.argv[1:])
