"""Triton's kinds of layouts, each from its own numbers to a matrix of bits."""

from __future__ import annotations

from collections.abc import Sequence

from tilebook.compiler.layouts import Linear, layout, tile

Places = list[tuple[int, ...]]


def blocked(
    size: Sequence[int],
    lanes: Sequence[int],
    warps: Sequence[int],
    order: Sequence[int],
    shape: Sequence[int],
) -> Linear:
    """Deal a tile out in boxes: what Triton starts from, and loads and stores with.

    Args:
        size: elements side by side that a thread holds, along each dimension.
        lanes: how the threads of a warp lie.
        warps: how the warps lie.
        order: dimensions, that along which numbers grow first in front.
        shape: of the tile.

    Returns:
        The layout. Boxes larger than the tile hold copies, a larger tile is dealt out
        in rounds, into further registers.
    """
    dealer = _Dealer(shape)
    given = {
        name: dealer.deal(counts, order)
        for name, counts in (("register", size), ("lane", lanes), ("warp", warps))
    }
    given["register"] += dealer.rest(order)
    return layout(shape, **given)


def sliced(parent: Linear, axis: int) -> Linear:
    """Leave out a dimension: what a reduction along it, or `expand_dims`, needs.

    Args:
        parent: layout of a tile with a side of one there, or any.
        axis: the dimension that goes.

    Returns:
        The layout of what is left. Threads that differ in that dimension alone hold the
        same; registers that do are left out.
    """
    kept = [n for n in range(len(parent.outputs)) if n != axis]
    shape = [1 << parent.outputs[n][1] for n in kept]
    given = {
        name: [tuple(at[n] for n in kept) for at in parent.bases(name)]
        for name, _ in parent.inputs
    }
    return layout(shape, **given).trimmed("register")


def mma(
    version: int, warps: Sequence[int], shape: Sequence[int], columns: int
) -> Linear:
    """Lay a tile out as NVIDIA's tensor cores leave their sums.

    Args:
        version: 2 for `mma.sync`, 3 for `wgmma`.
        warps: how the warps lie.
        shape: rows and columns of the tile.
        columns: of an instruction's result: 8 for version 2, up to 256 for version 3.

    Returns:
        The layout. Both fill 16 by 8 with a warp: a thread has two neighbours, and two
        more eight rows further down.
    """
    dealer = _Dealer(shape)
    given = _quads(dealer)
    dealer.deal((1, max(1, columns // 8)), (1, 0), given["register"])
    order = (0, 1) if version == 3 else (1, 0)
    given["warp"] = dealer.deal(warps, order)
    given["register"] += dealer.rest((1, 0))
    return layout(shape, **given)


def _quads(dealer: _Dealer) -> dict[str, Places]:
    register = dealer.deal((1, 2), (1, 0))
    lane = dealer.deal((8, 4), (1, 0))
    dealer.deal((2, 1), (1, 0), register)
    return {"register": register, "lane": lane}


def operand(
    index: int, width: int, version: int, warps: Sequence[int], shape: Sequence[int]
) -> Linear:
    """Lay an operand out as `mma.sync` (or `wgmma`, from registers) takes it.

    Args:
        index: 0 for the left, 1 for the right.
        width: terms side by side that a thread holds: four bytes of them, or more
            where they come from a narrower type.
        version: 2 or 3, of the product.
        warps: how the warps of the *product* lie.
        shape: of the operand.

    Returns:
        The layout. Warps that differ along the product's other side hold the same.
    """
    terms, other = (1, 0) if index == 0 else (0, 1)
    dealer = _Dealer(shape)

    def sides(along: int, across: int) -> tuple[int, ...]:
        return (across, along) if index == 0 else (along, across)

    order = (terms, other)
    register = dealer.deal(sides(width, 1), order)
    lane = dealer.deal(sides(4, 1), order) + dealer.deal(sides(1, 8), order)
    # The left one has 16 rows, the right one 8 columns; both have two parts of terms.
    if index == 0:
        dealer.deal(sides(1, 2), order, register)
    dealer.deal(sides(2, 1), order, register)
    order = (0, 1) if version == 3 else (1, 0)
    warp = []
    for axis in order:
        if axis == other:
            warp += dealer.deal(sides(1, warps[axis]), (other, terms))
        else:
            warp += [(0, 0)] * (warps[axis].bit_length() - 1)
    register += dealer.rest((terms, other))
    return layout(shape, register=register, lane=lane, warp=warp)


def mfma(side: int, warps: Sequence[int], shape: Sequence[int], turned: bool) -> Linear:
    """Lay a tile out as AMD's matrix cores leave their sums.

    Args:
        side: rows and columns of an instruction's result, 16 or 32.
        warps: how the warps, of 64 threads, lie.
        shape: of the tile.
        turned: whether a thread's neighbours lie in a row, not in a column.

    Returns:
        The layout: a thread has four neighbours, and another four where 64 threads
        with four each don't fill the square.
    """
    long, short = (1, 0) if turned else (0, 1)
    dealer = _Dealer(shape)

    def sides(along: int, across: int) -> tuple[int, ...]:
        return (across, along) if turned else (along, across)

    order = (long, short)
    register = dealer.deal(sides(4, 1), order)
    lane = dealer.deal(sides(1, side), order)
    lane += dealer.deal(sides(64 // side, 1), order)
    dealer.deal(sides(side // (256 // side), 1), order, register)
    warp = dealer.deal(warps, (1, 0))
    register += dealer.rest((1, 0))
    return layout(shape, register=register, lane=lane, warp=warp)


def swizzled(
    vector: int, rows: int, phases: int, order: Sequence[int], shape: Sequence[int]
) -> Linear:
    """Lay a tile out in shared memory, row after row, each with its groups exchanged.

    Args:
        vector: elements of a group, which stay together.
        rows: that follow one another and are exchanged alike.
        phases: how many ways there are; 1 exchanges nothing.
        order: dimensions, that of neighbours in front.
        shape: of the tile.

    Returns:
        From "offset", in elements, to the place: of row r, group g lies where group
        g xor (r / rows mod phases) would.
    """
    fast, *slow = order
    offset: Places = []
    for axis in order:
        for bit in range(shape[axis].bit_length() - 1):
            place = [0] * len(shape)
            place[axis] = 1 << bit
            if slow and axis == slow[0]:
                phase = (1 << bit) // rows % phases
                place[fast] = phase * vector % shape[fast]
            offset.append(tuple(place))
    return layout(shape, offset=offset)


def tiled(swizzle: int, bits: int, shape: Sequence[int], turned: bool) -> Linear:
    """Lay a tile out as Hopper's copy engine writes it and `wgmma` reads it.

    Args:
        swizzle: bytes of a row that are exchanged in groups of 16: 32, 64 or 128; 0 for
            a tile row after row, as it is.
        bits: of an element.
        shape: rows and columns.
        turned: whether columns play the part of rows.

    Returns:
        From "offset", in elements, to the place. Eight rows of that many bytes make a
        block, blocks follow one another down, then to the right.
    """
    dealer = _Dealer(shape)
    fast, slow = (0, 1) if turned else (1, 0)
    if not swizzle:
        return layout(shape, offset=dealer.rest((fast, slow)))
    wide, group = swizzle * 8 // bits, 128 // bits
    offset: Places = []
    counts = [1, 1]
    counts[fast] = wide
    dealer.deal(counts, (fast, slow), offset)
    for bit in range(min(8, shape[slow]).bit_length() - 1):
        place = [0, 0]
        place[slow] = 1 << bit
        place[fast] = (1 << bit) // (128 // swizzle) * group % wide
        offset.append((place[0], place[1]))
    dealer.covered[slow] = min(8, shape[slow])
    offset += dealer.rest((slow, fast))
    return layout(shape, offset=offset)


class _Dealer:
    """Deals the bits of a tile's places out, along each dimension from the lowest."""

    def __init__(self, shape: Sequence[int]) -> None:
        tile(shape)
        self.shape = tuple(shape)
        self.covered = [1] * len(self.shape)

    def deal(
        self, counts: Sequence[int], order: Sequence[int], to: Places | None = None
    ) -> Places:
        """Deal out so many steps along each dimension, those past the tile as 0."""
        to = [] if to is None else to
        for axis in order:
            for _ in range(counts[axis].bit_length() - 1):
                place = [0] * len(self.shape)
                if self.covered[axis] < self.shape[axis]:
                    place[axis] = self.covered[axis]
                    self.covered[axis] *= 2
                to.append(tuple(place))
        return to

    def rest(self, order: Sequence[int]) -> Places:
        """Deal out what is left of the tile."""
        left = zip(self.shape, self.covered, strict=True)
        return self.deal([side // done for side, done in left], order)
