"""The roof: every operator in one place."""

from tilebook import attention, memory, ops, parallel, tiling
from tilebook.tiling import blur, indexed, reduce


def test_every_name_is_there():
    assert ops.__all__ == sorted(ops.__all__)
    assert all(callable(getattr(ops, name)) for name in ops.__all__)


def test_operators_come_from_their_chapters():
    assert ops.add is parallel.add
    assert ops.attention is attention.attention
    assert ops.copy is memory.copy
    assert ops.transpose is tiling.transpose
    assert ops.blur is blur.blur
    assert ops.gather is indexed.gather
    assert ops.scatter is indexed.scatter
    assert ops.scatter_add is indexed.scatter_add
    assert ops.total is reduce.total
