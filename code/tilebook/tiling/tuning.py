"""Ways to launch the chapter's kernels, for `tools/tune.py` to choose from."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch

from tilebook import device
from tilebook.measure import Bench, Provider
from tilebook.tiling import aligned, blur, described, explicit, public, reduce

SQUARES = ((1000, 1000), (2048, 2048), (4095, 4097), (8192, 8192))
RAGGED = ((4095, 4097), (1023, 1023), (17, 100003))
LARGE = ((4096, 4096), (8192, 8192), (4096, 16384))
THIN = ((64, 1048576), (1048576, 64), (17, 100003))
DTYPES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
"""By bytes of an element."""
TALL = ((1048576, 64), (65536, 1024), (8192, 8192), (64, 1048576))


def setting(
    module: ModuleType, fn: Callable[..., Any], **constants: Any
) -> Callable[..., Any]:
    """A function as it would be if constants of its module had other values.

    Args:
        module: whose constants they are.
        fn: uses them when it is called.
        **constants: the other values.

    Returns:
        The function; the module is itself again when a call returns.
    """

    def call(*args: Any, **more: Any) -> Any:
        kept = {name: getattr(module, name) for name in constants}
        vars(module).update(constants)
        try:
            return fn(*args, **more)
        finally:
            vars(module).update(kept)

    return call


def _matrix(shape: tuple[int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    where = device.torch_device()
    if dtype == torch.uint8:
        return [torch.randint(0, 256, shape, dtype=dtype, device=where)]
    return [torch.randn(shape, device=where, dtype=dtype)]


def _turned(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous()


def _contest(
    bench: Bench, shape: tuple[int, int], size: int, ways: Mapping[str, Provider]
) -> None:
    m, n = shape
    bench.compare(
        shape={"m": m, "n": n},
        dtype=DTYPES[size],
        providers=ways,
        make_inputs=functools.partial(_matrix, shape, DTYPES[size]),
        reference=_turned,
        bytes=2 * m * n * size,
        regimes=("cold",),
    )


def _as(config: aligned.Config, x: torch.Tensor) -> torch.Tensor:
    out = torch.empty(x.shape[::-1], dtype=x.dtype, device=x.device)
    bits = aligned.bits
    aligned.launch_as(config, aligned.transpose_kernel, bits(x)[None], bits(out)[None])
    return out


def ragged(bench: Bench) -> None:
    """Tiles and warps for sides that nothing divides."""
    _pointers(bench, RAGGED, (1,))


def pointers(bench: Bench) -> None:
    """Tiles, strips and warps of the transpose by pointers."""
    _pointers(bench, (*SQUARES, *THIN), (1, 8))


def hints(bench: Bench) -> None:
    """Eviction policies and cache modifiers, of the tiles that ship."""
    for size, shape in itertools.product(DTYPES, LARGE):
        ways = {"shipped": Provider(public.transpose, ours=True)}
        for load, store, warps in itertools.product(
            ("", "evict_first", "evict_last"), ("", ".cs", ".cg"), (4, 8)
        ):
            config = aligned.config_for(size, *shape, 16 // size)
            config = config._replace(load=load, store=store, num_warps=warps)
            name = f"load={load} store={store} warps={warps}"
            ways[name] = Provider(functools.partial(_as, config), ours=True)
        _contest(bench, shape, size, ways)


def _pointers(
    bench: Bench, shapes: Sequence[tuple[int, int]], groups: Sequence[int]
) -> None:
    for size in DTYPES:
        for shape in shapes:
            ways = {"shipped": Provider(public.transpose, ours=True)}
            for block_m, block_n, group, warps in itertools.product(
                (32, 64, 128, 256), (32, 64, 128, 256), groups, (2, 4, 8)
            ):
                area = block_m * block_n
                # From one load of 16 bytes for each thread to what 64 registers hold.
                if not 16 <= area * size / (32 * warps) <= 256 or area > 2**15:
                    continue
                config = aligned.Config(block_m, block_n, group, warps)
                name = f"{block_m}x{block_n} group={group} warps={warps}"
                ways[name] = Provider(functools.partial(_as, config), ours=True)
            _contest(bench, shape, size, ways)


def layouts(bench: Bench) -> None:
    """Sides, strips and warps of the transpose with layouts written down."""
    for size, shape in itertools.product(DTYPES, SQUARES[1::2]):
        ways = {"shipped": Provider(public.transpose, ours=True)}
        ways["explicit"] = Provider(explicit.transpose, ours=True)
        for side, group, warps in itertools.product(
            (64, 128, 256), (1, 4, 8, 16), (1, 2, 4, 8)
        ):
            fn = setting(
                explicit,
                explicit.transpose,
                SIDES=explicit.SIDES | {size: (side, warps)},
                GROUP=group,
            )
            ways[f"side={side} group={group} warps={warps}"] = Provider(fn, ours=True)
        _contest(bench, shape, size, ways)


def engines(bench: Bench) -> None:
    """Blocks and strips of the transpose through descriptors."""
    for size, shape in itertools.product(DTYPES, SQUARES[1::2]):
        ways = {"shipped": Provider(described.transpose, ours=True)}
        for block_m, block_n, group in itertools.product(
            (32, 64, 128, 256), (32, 64, 128, 256), (1, 8)
        ):
            if block_m * block_n * size > 2**16:
                continue
            fn = setting(
                described,
                described.transpose,
                BLOCKS=described.BLOCKS | {size: (block_m, block_n)},
                GROUP=group,
            )
            name = f"{block_m}x{block_n} group={group}"
            ways[name] = Provider(fn, ours=True)
        _contest(bench, shape, size, ways)


def stencils(bench: Bench) -> None:
    """Strips and warps of the blur."""
    for size, side in itertools.product(
        blur.WEIGHTS, (255, 512, 1000, 1023, 4096, 8192)
    ):
        full = functools.partial(blur.blur, size=size, border="zero")
        ways = {"shipped": Provider(full, ours=True)}
        for rows, width in itertools.product((1, 2, 4, 8, 16), (128, 256, 512, 1024)):
            if side % 4:
                fn = setting(
                    blur,
                    functools.partial(blur.rows, size=size, border="zero"),
                    ROWS={"ROWS": rows, "BLOCK_W": width},
                    SMALLER={},
                )
                ways[f"rows={rows} width={width}"] = Provider(fn, ours=True)
                continue
            for warps in (1, 2, 4):
                fn = setting(
                    blur,
                    functools.partial(blur.packed, size=size, border="zero"),
                    PACKED={"ROWS": rows, "BLOCK": width // 2, "num_warps": warps},
                    SMALLER={},
                )
                name = f"rows={rows} words={width // 2} warps={warps}"
                ways[name] = Provider(fn, ours=True)
        bench.compare(
            shape={"h": side, "w": side, "size": size},
            dtype=torch.uint8,
            providers=ways,
            make_inputs=functools.partial(_matrix, (side, side), torch.uint8),
            # Every way is this book's: the first one's results are tested elsewhere.
            reference=functools.partial(blur.direct, size=size, border="zero"),
            bytes=2 * side * side,
            regimes=("cold",),
        )


def sums(bench: Bench) -> None:
    """Tiles of the sums along either dimension."""
    for dim, shape in itertools.product((0, 1), TALL):
        m, n = shape
        ways = {
            "shipped": Provider(lambda x, dim=dim: reduce.total(x, dim), ours=True),
            "torch": Provider(lambda x, dim=dim: x.sum(dim)),
        }
        for kept, summed in itertools.product(
            (1, 4, 16, 64, 128, 256), (8, 16, 64, 256, 512, 2048)
        ):
            if 1024 <= kept * summed <= 8192:
                fn = functools.partial(reduce.total, dim=dim, tile=(kept, summed))
                ways[f"kept={kept} summed={summed}"] = Provider(fn, ours=True)
        bench.compare(
            shape={"m": m, "n": n, "dim": dim},
            dtype=torch.float32,
            providers=ways,
            make_inputs=functools.partial(_matrix, shape, torch.float32),
            reference=lambda x, dim=dim: x.sum(dim),
            bytes=4 * m * n,
            length=shape[dim],
            regimes=("cold",),
        )


CONTESTS = {
    "pointers": pointers,
    "ragged": ragged,
    "hints": hints,
    "layouts": layouts,
    "engines": engines,
    "stencils": stencils,
    "sums": sums,
}
"""By name, what `tools/tune.py` runs."""
