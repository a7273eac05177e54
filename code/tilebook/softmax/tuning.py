"""Ways to launch the chapter's kernels, for `tools/tune.py` to choose from on a card.

`forward` asks which rung; the others how to launch it. Around what a rung chooses
itself, one field of its configuration at a time is halved, doubled or switched off:
few ways, which tell where to go from here.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch

from tilebook import device
from tilebook.measure import Bench, Provider
from tilebook.softmax import (
    backward,
    backward_cooperative,
    backward_long,
    cooperative,
    experiments,
    fused,
    letters,
    online,
    persistent,
    public,
    ragged,
    resident,
    several,
    split,
    tuning_reductions,
)
from tilebook.softmax.operands import cover

MODULES: dict[str, ModuleType] = {
    "fused": fused,
    "several": several,
    "persistent": persistent,
    "ragged": ragged,
    "online": online,
    "split": split,
    "resident": resident,
    "cooperative": cooperative,
    "tile": backward,
    "walk": backward,
    "long": backward_long,
    "joint": backward_cooperative,
}
# What each field of a configuration is multiplied by, in turn.
SIDES, OFF = (0.5, 2), (0,)
NEAR: dict[str, dict[str, tuple[float, ...]]] = {
    "fused": {"num_warps": SIDES},
    "several": {"rows": SIDES, "num_warps": SIDES},
    "persistent": {"num_warps": SIDES, "per_sm": SIDES},
    "ragged": {"num_warps": SIDES},
    "online": {"block": SIDES, "per_sm": SIDES, "back": OFF, "keep": OFF, "drop": OFF},
    "split": {"block": SIDES, "parts": SIDES, "keep": OFF, "drop": OFF},
    "resident": {"chunk": (0.5,), "num_warps": SIDES, "per_sm": SIDES, "lag": SIDES},
    "tile": {"rows": SIDES, "num_warps": SIDES},
    "walk": {"num_warps": SIDES, "per_sm": SIDES},
    "long": {"block": SIDES, "per_sm": SIDES, "keep": OFF, "drop": OFF},
}
WHOLE = {"cooperative": (4, 32), "joint": (4, 16)}
"""Tried as a whole: kibibytes of a part, from and to."""
EACH = {2: (16, 32), 4: (32, 64)}
"""Bytes of a part for each thread, by those of an element."""
THREADS_PER_SM = (512, 768, 1024)
STAGED = {"persistent": (0, 2, 3), "tile": (0,), "walk": (2, 3)}
"""Values of `stages` that are tried, the first being the one to start from."""
THREADS, SHARED = 2048, 224 * 1024
"""Of a multiprocessor, at most."""

HALVES, SINGLES = torch.bfloat16, torch.float32
# float16 is launched as bfloat16 is.
SINGLE_LENGTHS = (256, 1024, 4096, 8192, 16384, 32768, 65536)
SHORT = ((HALVES, 256), (HALVES, 1000), (HALVES, 1024), (HALVES, 2048), (SINGLES, 512))
MIDDLE = (
    *((HALVES, 4096), (HALVES, 4097), (HALVES, 8192), (HALVES, 16384)),
    *((HALVES, 32768), (SINGLES, 8192)),
)
LONG = (
    *(
        (HALVES, 32768),
        (HALVES, 50257),
        (HALVES, 65536),
        (HALVES, 131072),
        (HALVES, 262144),
    ),
    *((SINGLES, 32768), (SINGLES, 65536), (SINGLES, 131072)),
)
GRADIENTS = (
    *((HALVES, 256), (HALVES, 1024), (HALVES, 4096), (HALVES, 4097), (HALVES, 8192)),
    *((HALVES, 16384), (HALVES, 32768), (HALVES, 50257), (HALVES, 65536)),
    *((HALVES, 131072), (HALVES, 262144), (SINGLES, 4096), (SINGLES, 16384)),
    (SINGLES, 131072),
)


def near(name: str, m: int, n: int, itemsize: int) -> dict[str, Any]:
    """Configurations of a rung about its own, by what is different.

    Args:
        name: of the rung, or of the gradient's "tile", "walk" and "long".
        m: rows.
        n: elements of each.
        itemsize: bytes of one.

    Returns:
        Its own, named "own", and others; what can't be sensible is left out.
    """
    rung, sizes = MODULES[name], (n, itemsize)
    if name == "split":
        sizes = (m, n, itemsize)
    stages = STAGED.get(name, ())
    own = rung.config_for(*sizes, **({"stages": stages[0]} if stages else {}))
    found = {"own": own}
    if name in WHOLE:
        return found | _parts(name, n, itemsize)
    for count in stages[1:]:
        other = rung.config_for(*sizes, stages=count)
        if _sensible(other, n, itemsize):
            found[f"stages={count}"] = other
    for field, factors in NEAR[name].items():
        for factor in factors:
            value = getattr(own, field)
            value = type(value)(value * factor)
            if type(value) is int and value == 0:
                continue
            other = own._replace(**{field: value})
            if name == "resident":
                other = _ring(other, n, itemsize)
            if other and other not in found.values() and _sensible(other, n, itemsize):
                found[f"{field}={value}"] = other
    return found


def _parts(name: str, n: int, itemsize: int) -> dict[str, cooperative.Config]:
    """Parts of several sizes, two or four loads of 16 bytes a thread, few programs."""
    least, most = (kib * 1024 // itemsize for kib in WHOLE[name])
    found, block = {}, least
    while block <= most:
        for each in EACH[itemsize]:
            warps = block * itemsize // (32 * each)
            parts = letters.parts_of(n, block)
            if not 4 <= warps <= 32 or not 1 < parts <= (device.current().sms or 132):
                continue
            for threads in THREADS_PER_SM:
                per_sm = threads // (32 * warps)
                if per_sm and per_sm * 32 * warps == threads:
                    config = cooperative.Config(block, warps, per_sm)
                    found[f"block={block} num_warps={warps} per_sm={per_sm}"] = config
        block *= 2
    own = MODULES[name].config_for(n, itemsize)
    return {label: config for label, config in found.items() if config != own}


def _ring(config: resident.Config, n: int, itemsize: int) -> resident.Config | None:
    """The same with as many slots as there is room for, if a row has its place."""
    room = resident.SHARED // config.per_sm // (config.chunk * itemsize)
    slots = min(room, max(2, 4 * (n // config.chunk)))
    left = n - min(n // config.chunk, slots) * config.chunk
    tail = cover(-(-left // config.chunk)) if left else 0
    if room < 2 or tail > resident.TAIL or n < config.chunk:
        return None
    return config._replace(slots=slots, tail=tail)


def _sensible(config: Any, n: int, itemsize: int) -> bool:
    sizes = config._asdict()
    warps, per_sm = sizes["num_warps"], sizes.get("per_sm", 1)
    if warps > 32:
        return False
    area = sizes.get("block", sizes.get("chunk")) * sizes.get("rows", 1)
    # From one load of 16 bytes for each thread to what 64 registers hold.
    if not 16 // itemsize <= area // (32 * warps) <= 64 or area > 2 * max(n, 4096):
        return False
    tensors = 2 if isinstance(config, backward.Config) else 1
    if (sizes.get("stages", 0) - 1) * tensors * area * itemsize > SHARED:
        return False
    # A tile for each program: how many fit is the hardware's business.
    tiles = tensors == 2 and not config.stages
    return tiles or per_sm <= THREADS // (32 * warps)


def _ways(names: Sequence[str], m: int, n: int, itemsize: int) -> Iterator[tuple]:
    """Rungs and their configurations, with names for both."""
    for name in names:
        for label, config in near(name, m, n, itemsize).items():
            yield f"{name} {label}", name, config


def contest(
    bench: Bench, shape: tuple[int, int], dtype: torch.dtype, ways: Mapping[str, Any]
) -> None:
    """Let ways compete on a matrix.

    Args:
        bench: whose.
        shape: of the matrix.
        dtype: of its elements.
        ways: functions of it, by name.
    """
    m, n = shape
    ways = {"shipped": public.softmax, **ways}
    bench.compare(
        shape={"m": m, "n": n},
        dtype=dtype,
        providers={name: Provider(fn, ours=True) for name, fn in ways.items()},
        make_inputs=functools.partial(experiments.matrix, shape, dtype),
        reference=experiments.softmax_rows,
        bytes=2 * m * n * dtype.itemsize,
        length=n,
        along=0,
        regimes=("cold",),
    )


def rungs(shape: tuple[int, int], dtype: torch.dtype) -> list[str]:
    """The rungs that may be best for a matrix."""
    n, vector = shape[1], 16 // dtype.itemsize
    found = [
        name
        for name, rung in experiments.RUNGS.items()
        if name != "naive" and experiments.takes(rung, shape, dtype)
    ]
    # Without ends there is nothing to take apart, and short rows are read once.
    needless = {"ragged": n % vector == 0, "online": n <= several.LONGEST}
    needless["cooperative"] = n * dtype.itemsize <= 2**15
    return [name for name in found if not needless.get(name, False)]


def forward(bench: Bench) -> None:
    """Each rung as it launches itself, on the matrices of the experiments."""
    cases = [(HALVES, shape) for shape in experiments.shapes()]
    cases += [(SINGLES, _matrix(n)) for n in SINGLE_LENGTHS]
    cases += [(SINGLES, shape) for shape in experiments.FEW]
    for dtype, shape in cases:
        names = rungs(shape, dtype)
        contest(bench, shape, dtype, {name: MODULES[name].softmax for name in names})


def _matrix(n: int) -> tuple[int, int]:
    return max(1, experiments.ELEMENTS // n), n


def _launches(
    bench: Bench, cases: Sequence[tuple[torch.dtype, tuple[int, int]]]
) -> None:
    for dtype, shape in cases:
        found = _ways(rungs(shape, dtype), *shape, dtype.itemsize)
        contest(
            bench,
            shape,
            dtype,
            {
                label: functools.partial(MODULES[name].softmax, config=config)
                for label, name, config in found
            },
        )


def short(bench: Bench) -> None:
    """Rows of up to 4 KiB: several at a time, or one."""
    _launches(bench, [(dtype, _matrix(n)) for dtype, n in SHORT])


def middle(bench: Bench) -> None:
    """Rows that registers hold."""
    _launches(bench, [(dtype, _matrix(n)) for dtype, n in MIDDLE])


def long(bench: Bench) -> None:
    """Rows that registers don't hold."""
    _launches(bench, [(dtype, _matrix(n)) for dtype, n in LONG])


def few(bench: Bench) -> None:
    """Fewer rows than multiprocessors."""
    _launches(
        bench, [(d, shape) for d in (HALVES, SINGLES) for shape in experiments.FEW]
    )


def _gradient_as(
    way: ModuleType, config: Any, y: torch.Tensor, grad: torch.Tensor
) -> torch.Tensor:
    dx = torch.empty_like(y)
    way.launch_as(config, y, grad, dx)
    return dx


def gradients(bench: Bench) -> None:
    """Tiles, walks and two passes of the gradient."""
    for dtype, n in GRADIENTS:
        shape, size = _matrix(n), dtype.itemsize
        held = ("tile", "walk") if n <= backward.longest(size) else ()
        two = ("long", "joint") if n * size > 2**14 else ("long",)
        ways = {"shipped": Provider(experiments.gradient, ours=True)}
        for label, name, config in _ways((*held, *two), *shape, size):
            fn = functools.partial(_gradient_as, MODULES[name], config)
            ways[label] = Provider(fn, ours=True)
        bench.compare(
            shape={"m": shape[0], "n": n},
            dtype=dtype,
            providers=ways,
            make_inputs=functools.partial(
                experiments.operands_of_gradient, shape, dtype
            ),
            reference=experiments.gradient_formula,
            bytes=3 * shape[0] * n * size,
            length=16 * n,
            along=0,
            regimes=("cold",),
        )


CONTESTS = {
    "forward": forward,
    "short": short,
    "middle": middle,
    "long": long,
    "few": few,
    "backward": gradients,
    **tuning_reductions.CONTESTS,
}
"""By name, what `tools/tune.py` runs."""
