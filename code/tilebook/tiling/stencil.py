"""Blurring a grey picture: each pixel from its neighbours, in three ways.

The weights are a row of Pascal's triangle each way, 1 2 1 or 1 4 6 4 1, so that their
sum is a power of two and every step is exact in integers.

Half of that sum, which rounds to the nearest, comes as an argument. The compiler sees
that 16 bits suffice and adds two pixels in one instruction; and where a constant is for
the upper one of the two only, ptxas before CUDA 12.9, which Triton up to 3.7 brings
along, puts a zero in its place.
"""

import triton
import triton.language as tl


@triton.jit
def mirrored(i, n, BORDER: tl.constexpr):
    """Where along an axis of n pixels the one at i is found."""
    if BORDER == "reflect":
        # Round the last pixel, which itself is not repeated.
        last = n - 1
        i = tl.where(i < 0, -i, i)
        i = tl.where(i > last, last - (i - last), i)
    elif BORDER == "replicate":
        i = tl.minimum(tl.maximum(i, 0), n - 1)
    return i


@triton.jit
def direct_kernel(
    x_ptr, out_ptr, h, w, stride_h, stride_w, half,
    RADIUS: tl.constexpr, WEIGHTS: tl.constexpr, BORDER: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    tiles_w = (w - 1) // BLOCK_W + 1  # cdiv would pass 2^31 if w comes near
    pid_h = (tl.program_id(0) // tiles_w).to(tl.int64)
    pid_w = (tl.program_id(0) % tiles_w).to(tl.int64)
    offs_h = (pid_h * BLOCK_H + tl.arange(0, BLOCK_H))[:, None]
    offs_w = (pid_w * BLOCK_W + tl.arange(0, BLOCK_W))[None, :]
    mask = (offs_h < h) & (offs_w < w)  # (BLOCK_H, BLOCK_W)
    acc = tl.zeros((BLOCK_H, BLOCK_W), tl.int32)
    for i in tl.static_range(2 * RADIUS + 1):
        y = mirrored(offs_h + i - RADIUS, h, BORDER)
        for j in tl.static_range(2 * RADIUS + 1):
            x = mirrored(offs_w + j - RADIUS, w, BORDER)
            inside = mask & (y >= 0) & (y < h) & (x >= 0) & (x < w)
            pixel = tl.load(
                x_ptr + y * stride_h + x * stride_w, mask=inside, other=0
            )  # (BLOCK_H, BLOCK_W), uint8
            acc += WEIGHTS[i] * WEIGHTS[j] * pixel.to(tl.int32)
    # The weights sum to 16 or 256; half of it rounds to the nearest.
    grey = (acc + half) >> 4 * RADIUS
    tl.store(out_ptr + offs_h * w + offs_w, grey.to(tl.uint8), mask=mask)


@triton.jit
def across(
    x_ptr, y, offs, h, w, stride_h, stride_w,
    RADIUS: tl.constexpr, WEIGHTS: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """Row y of the picture, blurred along the row only: (BLOCK_W,), int32."""
    y = mirrored(y, h, BORDER)
    row_ptr = x_ptr + y * stride_h
    acc = tl.zeros(offs.shape, tl.int32)
    for j in tl.static_range(2 * RADIUS + 1):
        x = mirrored(offs + j - RADIUS, w, BORDER)
        inside = (offs < w) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
        pixel = tl.load(row_ptr + x * stride_w, mask=inside, other=0)
        acc += WEIGHTS[j] * pixel.to(tl.int32)
    return acc


@triton.jit
def rows_kernel(
    x_ptr, out_ptr, h, w, stride_h, stride_w, half,
    RADIUS: tl.constexpr, WEIGHTS: tl.constexpr, BORDER: tl.constexpr,
    ROWS: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    strips = (w - 1) // BLOCK_W + 1
    first = (tl.program_id(0) // strips).to(tl.int64) * ROWS
    offs = (tl.program_id(0) % strips).to(tl.int64) * BLOCK_W
    offs += tl.arange(0, BLOCK_W)
    # The rows above the first, each blurred along itself. From here on a
    # new row comes in per step, and the oldest goes.
    a = across(
        x_ptr, first - RADIUS, offs, h, w, stride_h, stride_w,
        RADIUS, WEIGHTS, BORDER,
    )  # fmt: skip
    b = across(
        x_ptr, first - RADIUS + 1, offs, h, w, stride_h, stride_w,
        RADIUS, WEIGHTS, BORDER,
    )  # fmt: skip
    c, d = a, b
    if RADIUS == 2:
        c = across(
            x_ptr, first, offs, h, w, stride_h, stride_w, RADIUS, WEIGHTS, BORDER
        )
        d = across(
            x_ptr, first + 1, offs, h, w, stride_h, stride_w, RADIUS, WEIGHTS, BORDER
        )
    for row in range(first, tl.minimum(first + ROWS, h)):
        e = across(
            x_ptr, row + RADIUS, offs, h, w, stride_h, stride_w,
            RADIUS, WEIGHTS, BORDER,
        )  # fmt: skip
        if RADIUS == 1:
            grey = (a + 2 * b + e + half) >> 4
            a, b = b, e
        else:
            grey = (a + 4 * b + 6 * c + 4 * d + e + half) >> 8
            a, b, c, d = b, c, d, e
        tl.store(out_ptr + row * w + offs, grey.to(tl.uint8), mask=offs < w)


@triton.jit
def beyond(row_ptr, words, LEFT: tl.constexpr, BORDER: tl.constexpr):
    """The four pixels before a row's first or after its last, in one word.

    Only the two that lie next to the row are right; nobody asks for the others.
    """
    if BORDER == "zero":
        return tl.full((), 0, tl.uint32)
    last = 4 * tl.cast(words, tl.int64) - 1
    # A picture of fewer than three columns has no pixel to reflect that far out.
    one: tl.constexpr = 1 if BORDER == "reflect" else 0
    two: tl.constexpr = 2 if BORDER == "reflect" else 0
    if LEFT:
        near = tl.load(row_ptr + one).to(tl.uint32)
        far = tl.load(row_ptr + two).to(tl.uint32)
        return near << 24 | far << 16
    near = tl.load(row_ptr + last - one).to(tl.uint32)
    far = tl.load(row_ptr + last - two).to(tl.uint32)
    return near | far << 8


@triton.jit
def across_words(
    x_ptr, y, offs, h, words, stride_h, RADIUS: tl.constexpr, BORDER: tl.constexpr
):  # fmt: skip
    """Row y, blurred along the row, as sums of 16 bits: of even and of odd pixels."""
    y = mirrored(y, h, BORDER)
    # The row of a program past the end is read as another's, and thrown away.
    there = (y >= 0) & (y < h)
    row_ptr = x_ptr + tl.where(there, y, 0) * stride_h * 4
    word_ptr = row_ptr.to(tl.pointer_type(tl.uint32), bitcast=True)
    inside = (offs < words) & there
    word = tl.load(word_ptr + offs, mask=inside, other=0)  # (BLOCK,), 4 pixels
    before = tl.load(word_ptr + offs - 1, mask=inside & (offs > 0), other=0)
    after = tl.load(word_ptr + offs + 1, mask=inside & (offs + 1 < words), other=0)
    if BORDER != "zero":
        left = beyond(row_ptr, words, True, BORDER)
        right = beyond(row_ptr, words, False, BORDER)
        before = tl.where(offs == 0, left, before)
        after = tl.where(offs + 1 == words, right, after)
    PAIRS: tl.constexpr = 0x00FF00FF
    # Pixel 0 is the lowest byte: the neighbours to the left move up.
    left_1 = word << 8 | before >> 24
    right_1 = word >> 8 | after << 24
    if RADIUS == 1:
        even = (left_1 & PAIRS) + 2 * (word & PAIRS) + (right_1 & PAIRS)
        odd = (left_1 >> 8 & PAIRS) + 2 * (word >> 8 & PAIRS)
        odd += right_1 >> 8 & PAIRS
    else:
        left_2 = word << 16 | before >> 16
        right_2 = word >> 16 | after << 16
        even = (left_2 & PAIRS) + (right_2 & PAIRS) + 6 * (word & PAIRS)
        even += 4 * ((left_1 & PAIRS) + (right_1 & PAIRS))
        odd = (left_2 >> 8 & PAIRS) + (right_2 >> 8 & PAIRS) + 6 * (word >> 8 & PAIRS)
        odd += 4 * ((left_1 >> 8 & PAIRS) + (right_1 >> 8 & PAIRS))
    return even, odd


@triton.jit
def down(a, b, c, d, e, RADIUS: tl.constexpr):
    """Blur sums of 16 bits down the columns, round, and leave a byte in each."""
    if RADIUS == 1:
        return (a + 2 * b + e + 0x00080008) >> 4 & 0x00FF00FF
    # At most 256 * 255 + 128: it just fits into 16 bits.
    return (a + 4 * (b + d) + 6 * c + e + 0x00800080) >> 8 & 0x00FF00FF


@triton.jit
def packed_kernel(
    x_ptr, out_ptr, h, words, stride_h,
    RADIUS: tl.constexpr, BORDER: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    strips = (words - 1) // BLOCK + 1
    first = (tl.program_id(0) // strips).to(tl.int64) * ROWS
    offs = (tl.program_id(0) % strips).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    top = first - RADIUS
    a0, a1 = across_words(x_ptr, top, offs, h, words, stride_h, RADIUS, BORDER)
    b0, b1 = across_words(x_ptr, top + 1, offs, h, words, stride_h, RADIUS, BORDER)
    c0, c1, d0, d1 = a0, a1, b0, b1
    if RADIUS == 2:
        c0, c1 = across_words(x_ptr, first, offs, h, words, stride_h, RADIUS, BORDER)
        d0, d1 = across_words(
            x_ptr, first + 1, offs, h, words, stride_h, RADIUS, BORDER
        )
    out_ptr = out_ptr.to(tl.pointer_type(tl.uint32), bitcast=True)
    for row in range(first, tl.minimum(first + ROWS, h)):
        e0, e1 = across_words(
            x_ptr, row + RADIUS, offs, h, words, stride_h, RADIUS, BORDER
        )
        even = down(a0, b0, c0, d0, e0, RADIUS)
        odd = down(a1, b1, c1, d1, e1, RADIUS)
        tl.store(out_ptr + row * words + offs, even | odd << 8, mask=offs < words)
        if RADIUS == 1:
            a0, a1, b0, b1 = b0, b1, e0, e1
        else:
            a0, a1, b0, b1, c0, c1, d0, d1 = b0, b1, c0, c1, d0, d1, e0, e1
