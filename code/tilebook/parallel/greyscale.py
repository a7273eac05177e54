"""A picture in grey: bytes that must not be summed as bytes, in two dimensions."""

import matplotlib.cbook
import matplotlib.image
import numpy as np
import torch
import triton
import triton.language as tl

from tilebook import check, library

BLOCK_H, BLOCK_W = 4, 256


@triton.jit
def load_rgb(
    rgb_ptr,
    h,
    w,
    stride_h,
    stride_w,
    stride_c,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    # One program id, unfolded into a row and a column of tiles.
    pid = tl.program_id(0)
    tiles_w = tl.cdiv(w, BLOCK_W)
    offs_h = (pid // tiles_w).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    offs_w = (pid % tiles_w).to(tl.int64) * BLOCK_W + tl.arange(0, BLOCK_W)
    mask = (offs_h < h)[:, None] & (offs_w < w)[None, :]  # (BLOCK_H, BLOCK_W)
    ptrs = rgb_ptr + offs_h[:, None] * stride_h + offs_w[None, :] * stride_w
    r = tl.load(ptrs, mask=mask, other=0)  # (BLOCK_H, BLOCK_W), uint8
    g = tl.load(ptrs + stride_c, mask=mask, other=0)
    b = tl.load(ptrs + 2 * stride_c, mask=mask, other=0)
    return r, g, b, offs_h[:, None] * w + offs_w[None, :], mask


@triton.jit
def wrapping_kernel(
    rgb_ptr, out_ptr, h, w, stride_h, stride_w, stride_c,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    r, g, b, offs, mask = load_rgb(
        rgb_ptr, h, w, stride_h, stride_w, stride_c, BLOCK_H, BLOCK_W
    )
    # Bytes add up to bytes: 200 + 100 + 0 is 44. The 3 takes the tile's type.
    grey = (r + g + b) // 3
    tl.store(out_ptr + offs, grey, mask=mask)


@triton.jit
def integer_kernel(
    rgb_ptr, out_ptr, h, w, stride_h, stride_w, stride_c,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    r, g, b, offs, mask = load_rgb(
        rgb_ptr, h, w, stride_h, stride_w, stride_c, BLOCK_H, BLOCK_W
    )
    # At most 1000 * 255 + 500: far inside an int32, and every step is exact.
    grey = 299 * r.to(tl.int32) + 587 * g.to(tl.int32) + 114 * b.to(tl.int32)
    grey = (grey + 500) // 1000
    tl.store(out_ptr + offs, grey.to(tl.uint8), mask=mask)


@triton.jit
def float_kernel(
    rgb_ptr, out_ptr, h, w, stride_h, stride_w, stride_c,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    r, g, b, offs, mask = load_rgb(
        rgb_ptr, h, w, stride_h, stride_w, stride_c, BLOCK_H, BLOCK_W
    )
    # uint8 with a float literal gives float32; the cast back cuts off what is
    # behind the point, so that adding a half rounds to the nearest.
    grey = 0.299 * r + 0.587 * g + 0.114 * b + 0.5
    tl.store(out_ptr + offs, grey.to(tl.uint8), mask=mask)


def greyscale(rgb: torch.Tensor, *, how: str = "integer") -> torch.Tensor:
    """Turn a colour picture into grey by the weights of ITU-R BT.601.

    Args:
        rgb: picture (h, w, 3), uint8, any strides: red, green, blue.
        how: the arithmetic. "integer" is exact; "float", in float32, may be one off
            where the exact value lies half-way between two greys; "wrapping", the
            plain mean in uint8, shows what sums of bytes come to.

    Returns:
        Luma (h, w), uint8, contiguous: `(299 r + 587 g + 114 b + 500) // 1000`, the
        weighted mean rounded to the nearest, halves up.

    Raises:
        TypeError: `rgb` isn't a tensor of uint8.
        ValueError: another shape, a tensor where this process's kernels can't reach
            it, or an unknown `how`.

    Notes:
        Weights: Recommendation ITU-R BT.601-7 (2011), section 2.5.1. They apply to the
        gamma-corrected values that picture files hold.
    """
    check.tensor(rgb, "rgb", dtype=torch.uint8, shape=(None, None, 3))
    check.runs_here(rgb, "rgb")
    kernels = {
        "integer": integer_kernel,
        "float": float_kernel,
        "wrapping": wrapping_kernel,
    }
    check.one_of(how, "how", kernels)
    h, w, _ = rgb.shape
    grey = torch.empty((h, w), dtype=torch.uint8, device=rgb.device)
    if grey.numel():
        tiles = triton.cdiv(h, BLOCK_H) * triton.cdiv(w, BLOCK_W)
        with library.on(rgb):
            kernels[how][(tiles,)](
                rgb, grey, h, w, *rgb.stride(), BLOCK_H=BLOCK_H, BLOCK_W=BLOCK_W
            )
    return grey


def photograph() -> np.ndarray:
    """Load the portrait of Rear Admiral Grace Hopper that comes with matplotlib.

    Returns:
        Picture (600, 512, 3), uint8.

    Notes:
        James S. Davis for the United States Navy, 1984; in the public domain.
    """
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return matplotlib.image.imread(file, format="jpg").copy()
