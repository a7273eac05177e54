"""`blur`: a stencil on a grey picture, with borders as PyTorch pads them."""

from collections.abc import Callable

import torch
import triton

from tilebook import check, library
from tilebook.tiling import stencil
from tilebook.tiling.operands import check_grid

BORDERS = {"reflect": "reflect", "replicate": "replicate", "zero": "constant"}
"""Ways to go on beyond a picture's edge, and `torch.nn.functional.pad`'s modes."""

WEIGHTS = {3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}
"""By size, the weights each way; those of a pixel are products of two."""

DIRECT = {"BLOCK_H": 4, "BLOCK_W": 128}
ROWS = {"ROWS": 8, "BLOCK_W": 256}
PACKED = {"ROWS": 8, "BLOCK": 256, "num_warps": 2}
# A picture of few pixels takes smaller tiles, so that there are programs for every
# multiprocessor: by kernel, the most pixels and the tile, fewest first.
SMALLER: dict[str, tuple[tuple[int, dict[str, int]], ...]] = {
    "direct": ((2**18, {"BLOCK_H": 1, "BLOCK_W": 128}),),
    "rows": ((2**22, {"ROWS": 4, "BLOCK_W": 512}),),
    "packed": (
        (2**18, {"ROWS": 1, "BLOCK": 128}),
        (2**21, {"ROWS": 4, "BLOCK": 128}),
    ),
}
TINY = 2**18
"""Pixels up to which loading all neighbours is no slower than keeping rows."""


def half(size: int) -> int:
    """Half of what a stencil's weights add up to, over both axes."""
    return sum(WEIGHTS[size]) ** 2 // 2


def direct(
    image: torch.Tensor, *, size: int = 3, border: str = "reflect"
) -> torch.Tensor:
    """Blur a picture; each program loads all neighbours of its tile. See `blur`."""
    _check(image, size, border)
    return _launched(_direct, image, size, border)


def rows(
    image: torch.Tensor, *, size: int = 3, border: str = "reflect"
) -> torch.Tensor:
    """Blur a picture; each program walks down a strip and keeps rows. See `blur`."""
    _check(image, size, border)
    return _launched(_rows, image, size, border)


def packed(
    image: torch.Tensor, *, size: int = 3, border: str = "reflect"
) -> torch.Tensor:
    """Blur a picture four pixels at a time in a 32-bit word.

    Args:
        image: as for `blur`; the number of columns, the distance of rows and the
            start are multiples of 4, the pixels of a row neighbours.
        size: see `blur`.
        border: see `blur`.

    Returns:
        See `blur`.

    Raises:
        ValueError: a picture that words don't fit, and see `blur`.
        TypeError: see `blur`.
    """
    _check(image, size, border)
    if image.numel() and not fits_words(image):
        raise ValueError(
            "image must have rows of neighbouring pixels, and columns, row stride and "
            f"start in multiples of 4; got shape {tuple(image.shape)}, strides "
            f"{image.stride()}, start {image.data_ptr() % 4} past one"
        )
    return _launched(_packed, image, size, border)


def blur(
    image: torch.Tensor, *, size: int = 3, border: str = "reflect"
) -> torch.Tensor:
    """Blur a grey picture by binomial weights.

    Args:
        image: picture (h, w), uint8, any strides.
        size: 3, for weights 1 2 1 each way, or 5, for 1 4 6 4 1.
        border: what lies beyond the edge: "reflect" goes back from the last pixel,
            "replicate" repeats it, "zero" is black.

    Returns:
        Picture (h, w), uint8, contiguous: the weighted mean, rounded to the nearest,
        halves up, exact in every pixel.

    Raises:
        TypeError: `image` isn't a tensor of uint8.
        ValueError: another shape, size or border, a picture too small to be reflected,
            a tensor where this process's kernels can't reach it, or a picture of more
            tiles than a grid has programs.

    Notes:
        Borders are those of `torch.nn.functional.pad`; its "constant" is our "zero".
    """
    _check(image, size, border)
    if not library.eager(image):
        return blur_operator(image, size, border)
    return _launched(_way(image), image, size, border)


def fits_words(image: torch.Tensor) -> bool:
    """Whether every row of a picture is a row of whole, aligned 32-bit words."""
    return (
        image.stride(1) == 1
        and not image.shape[1] % 4
        and not image.stride(0) % 4
        and not image.data_ptr() % 4
    )


def _check(image: torch.Tensor, size: int, border: str) -> None:
    check.tensor(image, "image", dtype=torch.uint8, shape=(None, None))
    check.runs_here(image, "image")
    check.one_of(size, "size", WEIGHTS)
    check.one_of(border, "border", BORDERS)
    least = size // 2 + 1
    if border == "reflect" and image.numel() and min(image.shape) < least:
        raise ValueError(
            f"image must have at least {least} rows and columns to be reflected for "
            f"size {size}, got {tuple(image.shape)}"
        )


# Not a `library.operator`: which kernel runs depends on an address, which nobody knows
# while PyTorch traces.
@torch.library.custom_op("tilebook::blur", mutates_args=())
def blur_operator(image: torch.Tensor, size: int, border: str) -> torch.Tensor:
    return _launched(_way(image), image, size, border)


@blur_operator.register_fake
def _(image: torch.Tensor, size: int, border: str) -> torch.Tensor:
    return torch.empty(image.shape, dtype=torch.uint8, device=image.device)


def _way(image: torch.Tensor) -> Callable[..., None]:
    if fits_words(image):
        return _packed
    return _direct if image.numel() <= TINY else _rows


def _tile(kernel: str, image: torch.Tensor, largest: dict[str, int]) -> dict[str, int]:
    for most, tile in SMALLER.get(kernel, ()):
        if image.numel() <= most:
            return tile
    return largest


def _launched(
    launch: Callable[..., None], image: torch.Tensor, size: int, border: str
) -> torch.Tensor:
    out = torch.empty(image.shape, dtype=torch.uint8, device=image.device)
    if out.numel():
        with library.on(image):
            launch(image, out, size, border)
    return out


def _direct(image: torch.Tensor, out: torch.Tensor, size: int, border: str) -> None:
    h, w = image.shape
    tile = _tile("direct", image, DIRECT)
    tiles = triton.cdiv(h, tile["BLOCK_H"]) * triton.cdiv(w, tile["BLOCK_W"])
    stencil.direct_kernel[(check_grid(tiles, "tiles", "image"),)](
        image, out, h, w, *image.stride(), half(size),
        RADIUS=size // 2, WEIGHTS=WEIGHTS[size], BORDER=border, **tile,
    )  # fmt: skip


def _rows(image: torch.Tensor, out: torch.Tensor, size: int, border: str) -> None:
    h, w = image.shape
    tile = _tile("rows", image, ROWS)
    strips = triton.cdiv(h, tile["ROWS"]) * triton.cdiv(w, tile["BLOCK_W"])
    stencil.rows_kernel[(check_grid(strips, "tiles", "image"),)](
        image, out, h, w, *image.stride(), half(size),
        RADIUS=size // 2, WEIGHTS=WEIGHTS[size], BORDER=border, **tile,
    )  # fmt: skip


def _packed(image: torch.Tensor, out: torch.Tensor, size: int, border: str) -> None:
    h, w = image.shape
    words = w // 4
    tile = _tile("packed", image, PACKED)
    strips = triton.cdiv(h, tile["ROWS"]) * triton.cdiv(words, tile["BLOCK"])
    stencil.packed_kernel[(check_grid(strips, "tiles", "image"),)](
        image, out, h, words, image.stride(0) // 4,
        RADIUS=size // 2, BORDER=border, **tile,
    )  # fmt: skip
