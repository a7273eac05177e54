"""Ways to launch the chapter's copies, for `tools/tune.py` to choose from on a card."""

import functools
import itertools
from collections.abc import Mapping

import torch

from tilebook import device
from tilebook.measure import Bench, Provider
from tilebook.memory import capped, copy, engine, persistent, vectors
from tilebook.memory.machine import normal

SIZES = (2**20, 2**22, 2**24, 2**26, 2**26 + 7, 2**28)
"""Elements of float32."""


def _contest(
    bench: Bench, ways: Mapping[str, Provider], sizes: tuple[int, ...] = SIZES
) -> None:
    for n in sizes:
        bench.compare(
            shape={"n": n},
            dtype=torch.float32,
            providers=ways,
            make_inputs=functools.partial(normal, n),
            reference=torch.clone,
            bytes=8 * n,
            along=0,
        )


def _ours(fn) -> Provider:
    return Provider(fn, ours=True, out=True)


def _as(config: capped.Config, x: torch.Tensor, *, out: torch.Tensor) -> None:
    capped.launch_as(config, *vectors.words(x, out))


def copies(bench: Bench) -> None:
    """Loads, warps, registers and hints of one tile for each program."""
    ways = {"shipped": _ours(copy), "copy_": Provider(_copied, out=True)}
    for loads, warps, cap, load, store in itertools.product(
        (1, 2, 4),
        (4, 8),
        (None, 40, 48, 56, 64, 72, 80, 96, 128),
        ("", "evict_first"),
        ("", ".cs"),
    ):
        config = capped.Config(loads, warps, 256, None, load, store)
        if cap:
            # As many words for each thread, whatever the warps.
            tail = (2048 if cap <= 80 else 4096) * warps // 4
            config = config._replace(tail=tail, maxnreg=cap)
        name = f"loads={loads} warps={warps} cap={cap} load={load} store={store}"
        ways[name] = _ours(functools.partial(_as, config))
    _contest(bench, ways)


def _copied(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    return out.copy_(x)


def loops(bench: Bench) -> None:
    """Programs and stages of the loop that strides over a vector."""
    ways = {"shipped": _ours(persistent.copy)}
    for per_sm, stages in itertools.product((2, 4, 8, 12, 16), (1, 2, 3, 4, 6, 8)):
        programs = per_sm * (device.current().sms or 1)
        fn = functools.partial(persistent.copy, programs=programs, stages=stages)
        ways[f"per_sm={per_sm} stages={stages}"] = _ours(fn)
    _contest(bench, ways, SIZES[2:5:2])


def engines(bench: Bench) -> None:
    """Tiles, stages and programs of the copy engine's ring."""
    ways = {"shipped": _ours(engine.copy)}
    for rows, stages, per_sm in itertools.product(
        (4, 8, 16, 32, 64), (2, 3, 4, 6, 8), (1, 2, 3, 4)
    ):
        ring = per_sm * stages * rows * 4 * engine.COLUMNS
        # What an SM has of shared memory, and at least the law's bytes.
        if 2**14 <= ring <= 220 * 2**10:
            fn = functools.partial(engine.copy, rows=rows, stages=stages, per_sm=per_sm)
            ways[f"rows={rows} stages={stages} per_sm={per_sm}"] = _ours(fn)
    _contest(bench, ways, SIZES[2:5:2])


CONTESTS = {"copies": copies, "loops": loops, "engines": engines}
"""By name, what `tools/tune.py` runs."""
