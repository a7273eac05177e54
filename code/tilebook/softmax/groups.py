"""Into how many groups `topk` cuts a row, and how many keys it sorts at a time."""

import triton

from tilebook.softmax import axes

# What will be tuned on a card.
WARP_KEYS = 1024
"""Keys that a warp sorts at most, and elements that it compares at a time; half as
many from `MANY` elements wanted on, for which it needs more registers."""
MANY = 64


def sides(terms: int, part_terms: int, k: int, vector: int) -> dict[str, int]:
    """Choose into how many groups a tile of terms is cut.

    Args:
        terms: in a tile.
        part_terms: that a program looks at.
        k: elements wanted, a power of two.
        vector: elements in 16 bytes.

    Returns:
        Logarithms of `k`, of the number of groups, of the members of each in all tiles,
        0 where the groups are the elements, and of lanes for both edges. Groups, and
        members of k groups, are about as many: then both together are fewest.
    """
    tiles = triton.next_power_of_2(-(-part_terms // terms))
    group = 1
    while 4 * group * group * k * tiles <= terms and terms // (2 * group) >= k:
        group *= 2
    return {
        "LOG_K": k.bit_length() - 1,
        "LOG_GROUPS": (terms // group).bit_length() - 1,
        "LOG_WIDTH": (tiles * group).bit_length() - 1,
        "LOG_EDGES": max(2 * vector, k).bit_length() - 1,
    }


def warps_for(k: int) -> int:
    """How many warps share what is sorted for k elements, a power of two."""
    return max(1, min(axes.MOST_WARPS, k // 16))


def room_for(k: int) -> int:
    """How many keys a program sorts at most for k elements, a power of two."""
    return warps_for(k) * WARP_KEYS // (2 if k >= MANY else 1)


def plan_for(seen: axes.View, k: int) -> axes.Plan:
    """Choose the tiles, and parts whose candidates are no more than can be sorted.

    Args:
        seen: the view.
        k: elements wanted, a power of two.

    Returns:
        The launch.
    """
    plan, most = (
        axes.plan(seen, num_warps=warps_for(k), warp_bytes=axes.MOST_BYTES),
        room_for(k),
    )
    terms = max(k, min(plan.meta["TERMS"], most))
    kept = min(plan.meta["KEPT"], most // terms)
    part_terms = min(plan.args[3], terms * (most // (kept * k)))
    part_terms = -(-part_terms // terms) * terms
    return axes.launch_of(seen, kept, terms, part_terms, warps_for(k))
