"""The roof: every operator in one place."""

from tilebook import ops, parallel


def test_every_name_is_there():
    assert ops.__all__ == sorted(ops.__all__)
    assert all(callable(getattr(ops, name)) for name in ops.__all__)


def test_operators_come_from_their_chapters():
    assert ops.add is parallel.add
