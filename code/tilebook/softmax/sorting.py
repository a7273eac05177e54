"""The k largest of a power of two of keys, by bitonic merges: no branch, no address."""

import triton
import triton.language as tl


@triton.jit
def packed(value, index):
    """Make keys that are in the order of values, and of equal ones the first above.

    Args:
        value: integers of 32 bits in the order of the values.
        index: from 0 to 2^32 - 2.

    Returns:
        int64, all different and above the least int64, if indices are.
    """
    low = 0xFFFF_FFFF - index.to(tl.int64)
    return (value.to(tl.int64) << 32) | low


@triton.jit
def index_of(key):
    """The index that `packed` has put into a key."""
    return 0xFFFF_FFFF - (key & 0xFFFF_FFFF)


@triton.jit
def exchanged(key, down, SPAN: tl.constexpr):
    """Put each key and the one that lies a span behind it into order.

    Args:
        key: int64, a power of two of them.
        down: whether the larger comes first, for each pair of spans (pairs, 1, 1).
        SPAN: how far apart they lie.

    Returns:
        The keys (pairs, 2, SPAN).
    """
    pairs = tl.reshape(key, (key.numel // (2 * SPAN), 2, SPAN))
    # The sum of two less the one is the other, even if it wraps round on the way.
    other = tl.sum(pairs, axis=1)[:, None, :] - pairs
    left = tl.arange(0, 2)[None, :, None] == 0
    return tl.where((pairs > other) == (left == down), pairs, other)


@triton.jit
def merged_runs(key, LOG_RUN: tl.constexpr, LOG_ROW: tl.constexpr):
    """Sort runs that rise and then fall: every second upwards, but a whole row down.

    Args:
        key: rows of 2**LOG_ROW keys each, one after the other.
        LOG_RUN: of the length of a run.
        LOG_ROW: of the length of a row.

    Returns:
        The keys, in one dimension.
    """
    for i in tl.static_range(LOG_RUN):
        pairs = tl.arange(0, key.numel // 2 ** (LOG_RUN - i))
        run = pairs % 2 ** (LOG_ROW - LOG_RUN + i) // 2**i
        key = exchanged(key, (run % 2 == 0)[:, None, None], 2 ** (LOG_RUN - i - 1))
    return tl.reshape(key, (key.numel,))


@triton.jit
def top(key, ROWS: tl.constexpr, LOG_K: tl.constexpr, LOG_ROW: tl.constexpr):
    """Find the largest keys of each row.

    Args:
        key: int64 (ROWS, 2**LOG_ROW).
        ROWS: a power of two.
        LOG_K: of how many are wanted; at most `LOG_ROW`.

    Returns:
        Keys (ROWS, 2**LOG_K), the largest first.
    """
    key = tl.reshape(key, (ROWS * 2**LOG_ROW,))
    for i in tl.static_range(LOG_K):
        key = merged_runs(key, i + 1, LOG_ROW)
    for i in tl.static_range(LOG_ROW - LOG_K):
        # One run falls and the next one rises: side by side, the larger of each two are
        # the larger half of both, and they fall and rise again.
        key = tl.reshape(key, (ROWS * 2 ** (LOG_ROW - LOG_K - i - 1), 2, 2**LOG_K))
        key = merged_runs(tl.max(key, axis=1), LOG_K, LOG_ROW - i - 1)
    return tl.reshape(key, (ROWS, 2**LOG_K))
