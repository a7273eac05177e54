"""The tables of shapes that the chapter shows."""

import pytest

from tilebook.tiling import by_hand, tiled, trace


def listed(frame):
    return list(zip(frame["name"], frame["shape"], frame["dtype"], strict=True))


def test_transpose():
    frame = trace.transpose()
    assert listed(frame) == [
        ("tiles_n", (), "int32"),
        ("pid_m", (), "int64"),
        ("pid_n", (), "int64"),
        ("offs_m", (4,), "int64"),
        ("offs_n", (8,), "int64"),
        ("mask", (4, 8), "int1"),
        ("x", (4, 8), "fp32"),
    ]
    first = tiled.transpose_kernel.fn.__code__.co_firstlineno
    assert first < min(frame["line"])
    rows = listed(trace.transpose(2, 4, expressions=True))
    assert ("offs_m[:, None] * stride_m", (2, 1), "int64") in rows
    assert ("tl.trans(x)", (4, 2), "fp32") in rows
    assert ("tl.trans(mask)", (4, 2), "int1") in rows


def test_matmul():
    assert listed(trace.matmul()) == [
        ("pid_m", (), "int32"),
        ("pid_n", (), "int32"),
        ("offs_m", (4, 1), "int64"),
        ("offs_n", (1, 4), "int64"),
        ("acc", (4, 4), "fp32"),
        ("offs_k", (4,), "int32"),
        ("a", (4, 4), "fp32"),
        ("b", (4, 4), "fp32"),
    ]
    rows = listed(trace.matmul(2, expressions=True))
    assert ("a[:, :, None]", (2, 2, 1), "fp32") in rows
    assert ("b[None, :, :]", (1, 2, 2), "fp32") in rows
    assert ("a[:, :, None] * b[None, :, :]", (2, 2, 2), "fp32") in rows


def test_unfit():
    with pytest.raises(ValueError, match="block_n must be a power of two up to 64"):
        trace.transpose(4, 3)
    with pytest.raises(ValueError, match="block must be 1, 2, 4 or 8, got 16"):
        trace.matmul(16)
    assert max(by_hand.BLOCKS) == 8
