"""What the chapter measures: a transpose, the order of its tiles, a stencil."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tilebook import device, measure
from tilebook.measure import Bench, Provider, Row
from tilebook.tiling import (
    aligned,
    blur,
    conclusions,
    described,
    explicit,
    grouped,
    naive,
    public,
    tiled,
)

__all__ = ["conclusions", "tiling_order", "tiling_stencil", "tiling_transpose"]

SHAPES = (
    *((256, 256), (1000, 1000), (1024, 1024), (2048, 2048), (4095, 4097)),
    *((4096, 4096), (8192, 8192), (4096, 16384), (16384, 4096), (16384, 16384)),
    *((64, 1048576), (1048576, 64), (17, 100003)),
)
DTYPES = (torch.float32, torch.bfloat16, torch.uint8)
DTYPES_BRIEF = (torch.bfloat16,)
CASES = tuple((dtype, shape) for dtype in DTYPES for shape in SHAPES)
CASES_BRIEF = (
    *((torch.bfloat16, (side, side)) for side in (1000, 4096, 8192)),
    (torch.bfloat16, (4095, 4097)),
    *((dtype, (8192, 8192)) for dtype in (torch.float32, torch.uint8)),
)
# One side of a picture; all are square.
PICTURES = (255, 512, 1000, 1024, 2048, 4096, 8192, 16384)
STENCILS = tuple((size, side) for size in blur.WEIGHTS for side in PICTURES)
STENCILS_BRIEF = ((3, 8192), (5, 8192))
# On larger pictures the search for a convolution takes up to a minute for each, and
# ends at the kernel that `conv2d` runs, which is tried there too.
SEARCHED = 4096
ORDERED = (8192, 8192)
GROUPS = (1, 2, 4, 8, 16, 32)


def _matrix(shape: tuple[int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    where = device.torch_device()
    if dtype == torch.uint8:
        return [torch.randint(0, 256, shape, dtype=dtype, device=where)]
    return [torch.randn(shape, device=where, dtype=dtype)]


def _place(x: torch.Tensor) -> torch.Tensor:
    return torch.empty(x.shape[::-1], dtype=x.dtype, device=x.device)


def _turned(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous()


def _copied(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    # Into memory that is there: PyTorch at its best.
    return out.copy_(x.t())


def _ladder(shape: tuple[int, int], dtype: torch.dtype) -> dict[str, Provider]:
    """The rungs that take a matrix, and the peers."""
    rungs = {"naive": naive, "tiled": tiled, "grouped": grouped, "aligned": aligned}
    # The refusals look at sizes and strides alone: no memory is needed.
    like = torch.empty(shape, dtype=dtype, device="meta")
    if described.refusal(like) is None:
        rungs["described"] = described
    if device.has("sm80") and explicit.refusal(like) is None:
        rungs["explicit"] = explicit
    ours = {name: Provider(rung.transpose, ours=True) for name, rung in rungs.items()}
    if "described" in ours:
        wide = functools.partial(described.transpose, wide=True)
        ours["described, wide"] = Provider(wide, ours=True)
    return ours | {
        "transpose": Provider(public.transpose, ours=True),
        "torch, into out": Provider(_copied, out=True),
        "torch": Provider(_turned),
        "torch.compile": measure.compiled(_turned),
    }


@measure.experiment(
    "tiling-transpose",
    question="How near does each rung of transpose come to a copy, and to PyTorch's?",
    op="transpose",
    modules=(
        "tiling.naive",
        "tiling.tiled",
        "tiling.grouped",
        "tiling.aligned",
        "tiling.described",
        "tiling.explicit",
        "tiling.public",
    ),
)
def tiling_transpose(bench: Bench) -> list[Row]:
    for dtype, shape in bench.choose(CASES, CASES_BRIEF):
        m, n = shape
        bench.compare(
            shape={"m": m, "n": n},
            dtype=dtype,
            providers=_ladder(shape, dtype),
            make_inputs=functools.partial(_matrix, shape, dtype),
            make_output=_place,
            reference=_turned,
            bytes=2 * m * n * dtype.itemsize,
        )
    return bench.rows


@measure.experiment(
    "tiling-order",
    question="What is the order worth in which programs take their tiles?",
    op="transpose",
    modules=("tiling.grouped",),
)
def tiling_order(bench: Bench) -> list[Row]:
    m, n = ORDERED
    # All orders in one comparison: they differ by less than a card drifts.
    providers = {
        f"strips of {group}": Provider(
            functools.partial(grouped.transpose, group=group), ours=True
        )
        for group in GROUPS
    }
    for dtype in bench.choose(DTYPES, DTYPES_BRIEF):
        bench.compare(
            shape={"m": m, "n": n},
            dtype=dtype,
            providers=providers,
            make_inputs=functools.partial(_matrix, ORDERED, dtype),
            make_output=_place,
            reference=_turned,
            bytes=2 * m * n * dtype.itemsize,
        )
    return bench.rows


@functools.cache
def weighed(size: int) -> torch.Tensor:
    """A stencil's weights, for `convolved`.

    Args:
        size: of the stencil, 3 or 5.

    Returns:
        Weights (1, 1, size, size), float32, whose sum is 1, where kernels run.
    """
    weights = torch.tensor(
        blur.WEIGHTS[size], dtype=torch.float32, device=device.torch_device()
    )
    return torch.outer(weights, weights)[None, None] / weights.sum() ** 2


def convolved(image: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Blur by PyTorch's convolution, in the narrowest type that is exact.

    Args:
        image: picture (h, w), uint8.
        weights: of the stencil, as `weighed` gives them.

    Returns:
        What `blur` returns for a border of zeros.
    """
    grey = F.conv2d(image[None, None].float(), weights, padding=weights.shape[-1] // 2)
    return (grey[0, 0] + 0.5).to(torch.uint8)


@functools.cache
def halved(size: int) -> torch.Tensor:
    """Half of the sum of a stencil's weights, int32, a scalar where kernels run."""
    half = blur.half(size)
    return torch.tensor(half, dtype=torch.int32, device=device.torch_device())


def shifted(image: torch.Tensor, half: torch.Tensor, size: int) -> torch.Tensor:
    """Blur by adding shifted pictures, which a compiler can fuse into one pass.

    Args:
        image: picture (h, w), uint8.
        half: what `halved` gives. As a constant it went the way of that in our own
            kernels: what Inductor wrote was right, what ptxas made of it was not.
        size: of the stencil, 3 or 5.

    Returns:
        What `blur` returns for a border of zeros.
    """
    h, w = image.shape
    radius, weights = size // 2, blur.WEIGHTS[size]
    wide = F.pad(image, (radius,) * 4).int()
    total = sum(
        weights[i] * weights[j] * wide[i : i + h, j : j + w]
        for i in range(size)
        for j in range(size)
    )
    return ((total + half) >> 4 * radius).to(torch.uint8)


def _blurred(image: torch.Tensor, size: int) -> torch.Tensor:
    """The reference: exact in float64, then rounded."""
    weights = torch.tensor(blur.WEIGHTS[size], dtype=torch.float64, device=image.device)
    kernel = torch.outer(weights, weights)[None, None]
    h, w = image.shape
    wide = F.pad(image.double(), (size // 2,) * 4)
    total = sum(
        kernel[0, 0, i, j] * wide[i : i + h, j : j + w]
        for i in range(size)
        for j in range(size)
    )
    return torch.floor(total / kernel.sum() + 0.5).to(torch.uint8)


def _stencils(side: int, size: int) -> dict[str, Provider]:
    """The ways of ours that take a picture, and the peers."""
    ways: dict[str, Callable[..., torch.Tensor]] = {
        "direct": blur.direct,
        "rows": blur.rows,
    }
    if side % 4 == 0:
        ways["packed"] = blur.packed
    ways["blur"] = blur.blur
    ours = {
        name: Provider(functools.partial(way, size=size, border="zero"), ours=True)
        for name, way in ways.items()
    }
    convolution = functools.partial(convolved, weights=weighed(size))
    peers = {
        "conv2d": Provider(convolution),
        "torch.compile": measure.compiled(
            functools.partial(shifted, half=halved(size), size=size)
        ),
    }
    if side <= SEARCHED:
        peers["torch.compile, conv2d"] = measure.compiled(convolution)
    return ours | peers


@measure.experiment(
    "tiling-stencil",
    question="How near does a blur of bytes come to a copy of them?",
    op="blur",
    modules=("tiling.stencil", "tiling.blur"),
)
def tiling_stencil(bench: Bench) -> list[Row]:
    for size, side in bench.choose(STENCILS, STENCILS_BRIEF):
        bench.compare(
            shape={"h": side, "w": side, "size": size},
            dtype=torch.uint8,
            providers=_stencils(side, size),
            make_inputs=functools.partial(_matrix, (side, side), torch.uint8),
            reference=functools.partial(_blurred, size=size),
            bytes=2 * side * side,
        )
    return bench.rows
