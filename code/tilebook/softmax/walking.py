"""What all reductions' kernels share: where a program begins and where it ends."""

import triton
import triton.language as tl


@triton.jit
def begin(
    x_ptr, outer, inner, terms, part_terms,
    stride_outer, stride_inner, stride_term, out_outer, out_inner,
    DIV: tl.constexpr, ALONG: tl.constexpr, KEPT: tl.constexpr,
):  # fmt: skip
    """Find a program's sequences.

    Args:
        x_ptr: the tensor.
        outer, inner: how many sequences are kept apart; a program has `KEPT` inner
            ones.
        terms: of each sequence; a program has `part_terms` of them, the last perhaps
            fewer.
        stride_outer, stride_inner, stride_term: of the tensor. All but the one that
            neighbours in a tile are apart by are in units of `DIV`, and so is the
            number of these neighbours: Triton asks of an argument only whether 16
            divides it, and a constant factor tells the compiler of 2, 4 and 8 as well.
        out_outer, out_inner: strides of the output.
        DIV: that divisor.
        ALONG: whether neighbours in a tile are terms.

    Returns:
        Pointers (KEPT, 1) to the first terms, the step from one term to the next, how
        many terms there are, the numbers of the part and of its first term, and offsets
        in the output (KEPT,) with their mask.
    """
    inner, terms = tl.cast(inner, tl.int64), tl.cast(terms, tl.int64)
    step_outer = tl.cast(stride_outer, tl.int64) * DIV
    step_inner = tl.cast(stride_inner, tl.int64)
    step = tl.cast(stride_term, tl.int64)
    if ALONG:
        terms *= DIV
        step_inner *= DIV
    else:
        inner *= DIV
        step *= DIV
    # As many programs as 31 bits number, so these divisions need no more.
    pid, across = tl.program_id(0), ((inner + KEPT - 1) // KEPT).to(tl.int32)
    part, tile = (pid // (outer * across)).to(tl.int64), pid % (outer * across)
    row, start = (tile // across).to(tl.int64), (tile % across).to(tl.int64) * KEPT
    first = part * part_terms
    count = tl.minimum(terms - first, part_terms).to(tl.int32)
    offs_k = start + tl.arange(0, KEPT)
    x_ptr += row * step_outer + first * step
    out = row * out_outer + offs_k * out_inner
    rows = x_ptr + (offs_k * step_inner)[:, None]
    return rows, step, count, part, first, out, offs_k < inner


@triton.jit
def walk(rows, step, count, EDGES: tl.constexpr, TERMS: tl.constexpr):
    """Divide sequences into whole tiles, a rest, and perhaps their two edges.

    Args:
        rows: pointers (KEPT, 1) to the first terms.
        step: from one term to the next; 1 where there are edges.
        count: terms of each.
        EDGES: whether a sequence may begin and end anywhere. Its edges are what lies
            before the first address and behind the last that 16 divides, so that all
            between them can be loaded 16 bytes at a time.
        TERMS: in a tile.

    Returns:
        Pointers to the first tile (KEPT, TERMS), how many terms lie before it, how many
        from there on to the other edge, and how many of these are in whole tiles.
    """
    lanes = tl.arange(0, TERMS)[None, :]
    if EDGES:
        vector: tl.constexpr = 128 // rows.dtype.element_ty.primitive_bitwidth
        past = (rows.to(tl.int64) // (16 // vector) % vector).to(tl.int32)
        ahead = tl.minimum((vector - past) % vector, count)  # (KEPT, 1)
        between = (count - ahead) // vector * vector
        full = tl.min(between) // TERMS * TERMS
        ptrs = tl.multiple_of(rows + ahead + lanes, (1, 16))
    else:
        ahead, between, full = 0, count, count // TERMS * TERMS
        ptrs = rows + lanes * step
    return ptrs, ahead, between, full


@triton.jit
def edges(rows, ahead, between, count, LEAST: tl.constexpr = 1):
    """The terms of both edges, see `walk`.

    Args:
        rows: pointers to the first terms.
        ahead, between: what `walk` returned.
        count: terms of each sequence.
        LEAST: lanes wanted at least.

    Returns:
        Offsets from the first term, for two vectors of lanes at least, and which exist.
    """
    vector: tl.constexpr = 128 // rows.dtype.element_ty.primitive_bitwidth
    width: tl.constexpr = 2 * vector if 2 * vector > LEAST else LEAST
    lanes = tl.arange(0, width)[None, :]
    before = lanes < vector
    offs = tl.where(before, lanes, ahead + between + lanes - vector)
    return offs, (before & (lanes < ahead)) | ((lanes >= vector) & (offs < count))


@triton.jit
def least(x_ptr):
    """The least value of the elements that a pointer points to."""
    kind: tl.constexpr = x_ptr.dtype.element_ty
    if kind.is_floating():
        return float("-inf")
    elif kind.is_int_unsigned():
        return 0
    else:
        return -(2 ** (kind.primitive_bitwidth - 1))


@triton.jit
def fetched(ptrs, mask, low, ACC: tl.constexpr):
    """Load elements to be compared.

    Args:
        ptrs: pointers to them.
        mask: which exist.
        low: what stands for those that don't, see `least`.
        ACC: the type that elements are compared in.

    Returns:
        The elements, as `ACC`.
    """
    kind: tl.constexpr = ptrs.dtype.element_ty
    if kind.is_int_signed() and kind.primitive_bitwidth < 32:
        # Triton 3.6 and 3.7 put a negative other= into the first lane of each word
        # alone; the lanes that share the word get -1.
        x = tl.load(ptrs, mask=mask, other=0).to(ACC)
        return tl.where(mask, x, low)
    else:
        return tl.load(ptrs, mask=mask, other=low).to(ACC)


@triton.jit
def ordered(x):
    """Integers that are in the order of numbers: NaN above all, -0 equal to 0.

    Args:
        x: floating-point numbers in 32 or 64 bits, or integers, which stay as they are.

    Returns:
        Integers of the same width, signed.
    """
    if x.dtype.is_floating():
        # The sum of -0 and 0 is 0.
        x += 0.0
        if x.dtype == tl.float64:
            bits = x.to(tl.int64, bitcast=True)
            most: tl.constexpr = 0x7FFF_FFFF_FFFF_FFFF
        else:
            bits = x.to(tl.int32, bitcast=True)
            most: tl.constexpr = 0x7FFF_FFFF
        # Negative floats grow with the magnitude of their bits.
        bits = tl.where(bits < 0, bits ^ most, bits)
        bits = tl.where(x != x, most, bits)
    else:
        bits = x
    return bits
