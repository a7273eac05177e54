"""What a storage holds travels as it is, and empty pages not at all."""

import pytest
import torch

from tilebook import _ship
from tilebook._ship.unpack import PAGE

SIZES = (0, 1, 5, PAGE - 1, PAGE, PAGE + 3, 5 * PAGE + 7)


def storage_of(x):
    return x.untyped_storage()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fill", ["zeros", "random", "holes"])
def test_contents_come_back(size, fill):
    x = torch.zeros(size, dtype=torch.uint8)
    if fill != "zeros":
        x.random_(1, 256)
    if fill == "holes":
        x[PAGE : 3 * PAGE] = 0
    content = _ship.contents(storage_of(x))
    assert content.nbytes == size
    y = torch.full_like(x, 7)
    _ship.overwrite(storage_of(y), content)
    assert torch.equal(x, y)


def test_empty_pages_stay_at_home():
    x = torch.zeros(5 * PAGE + 7, dtype=torch.uint8)
    x[PAGE] = x[5 * PAGE + 6] = 1
    content = _ship.contents(storage_of(x))
    assert content.pages == [1]
    assert len(content.data) == PAGE + 7


def test_negative_zero_is_not_nothing():
    x = torch.full((PAGE // 2,), -0.0, dtype=torch.bfloat16)
    storages = []
    back = _ship.loads(_ship.dumps(x, storages), [])
    assert torch.equal(back.view(torch.int16), x.view(torch.int16))


def test_views_of_one_large_storage_stay_views():
    wide = torch.zeros(2**28, dtype=torch.int8)
    rows = wide.as_strided((3, 4), (2**27 - 100, 1))
    rows.copy_(torch.arange(12).view(3, 4))
    data = _ship.dumps((wide, rows), [])
    assert len(data) < 5 * PAGE
    found, seen = _ship.loads(data, [])
    assert torch.equal(seen, rows)
    seen[2, 3] = 100
    assert found[2 * (2**27 - 100) + 3] == 100
