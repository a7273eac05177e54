"""Products in two launches: every element is somebody's, and none is two's."""

import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import testing
from tilebook.hopper import cooperative, folded, launching, remainder, widths
from tilebook.hopper.remainder import CONFIGS, Config
from tilebook.matmul import accuracy
from tilebook.matmul.evidence import task_for
from tilebook.matmul.operands import Task, task_of
from tilebook.matmul.shapes import Shape

BF16, FP16 = launching.DTYPES
LEFT_OVER = Shape(512, 22016, 4096)
each_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda c: "-".join(map(str, c))
)


@pytest.fixture
def few(monkeypatch):
    """A card of so few multiprocessors that small products have whole turns."""

    def make(sms):
        found = dataclasses.replace(
            here.current(), sms=sms, shared_memory_per_block=227 * 1024
        )
        monkeypatch.setattr(here, "current", lambda: found)

    return make


@pytest.fixture
def launched(monkeypatch):
    """What is launched, in order; each product is made by PyTorch."""
    seen = []

    def note(module):
        def launch(task, config):
            seen.append((module, config, task))
            # Who writes where another wrote before would meet a number.
            assert task.out.isnan().all()
            task.out.copy_(task.a @ task.b)

        monkeypatch.setattr(module, "launch", launch)

    for module in (cooperative, folded, widths):
        note(module)
    return seen


def task(m, n, k=8):
    a, b = torch.randn(m, k).to(BF16), torch.randn(k, n).to(BF16)
    return Task(a, b, torch.full((m, n), torch.nan, dtype=BF16))


@pytest.mark.parametrize(
    ("m", "n", "columns"),
    [
        (512, 22016, 16896),
        (512, 12288, 8448),
        (512, 10240, 8448),
        (4096, 10240, 9472),
        # Fewer tiles than a turn, and whole turns.
        (512, 4096, 0),
        (512, 33 * 256, 0),
        (1024, 66 * 256, 0),
        (128, 132 * 256 + 8, 132 * 256),
    ],
)
def test_how_many_columns_are_whole_turns(m, n, columns, few):
    few(132)
    found = task_for(Shape(m, n, 8), "NT", BF16)
    assert remainder.whole(found) == columns


@given(
    rows=st.integers(1, 6), columns=st.integers(1, 40), ragged=st.integers(0, 31),
    sms=st.integers(1, 24),
)  # fmt: skip
def test_whole_turns_are_whole_and_fewer_than_all(rows, columns, ragged, sms):
    with pytest.MonkeyPatch.context() as patch:
        card = dataclasses.replace(here.current(), sms=sms)
        patch.setattr(here, "current", lambda: card)
        n = columns * 256 - 8 * ragged
        found = task_for(Shape(rows * 128, n, 8), "NT", BF16)
        wide = remainder.whole(found)
    assert wide % 256 == 0
    assert wide < n or not wide
    tiles, all_tiles = wide // 256 * rows, columns * rows
    if not wide:
        assert all_tiles % sms == 0 or all_tiles // sms * sms < rows
        return
    # As many as whole turns hold, in whole columns of tiles.
    turns = all_tiles // sms
    assert turns * sms - rows < tiles <= turns * sms


@each_config
def test_the_rest_first_and_nothing_twice(config, few, launched):
    few(8)
    width = config.first + config.second
    # Two turns of eight wide tiles, and one of eight narrower ones, all in two rows.
    product = task(200, 2 * 4 * 256 + 4 * width - 8)
    remainder.launch(product, config)
    (first, tile, rest), (second, wide, most) = launched
    assert first is (widths if config.second else cooperative)
    assert second is folded
    assert tuple(wide) == (128, 256, 64, 4, 2, config.group)
    assert tile.block_m == 128
    assert tile.block_n + getattr(tile, "more", 0) == width
    assert tile.num_stages == config.num_stages
    assert (most.n, rest.n) == (2048, 4 * width - 8)
    for part in (most, rest):
        assert part.a is product.a
        assert part.wrap is product.wrap
    assert torch.equal(product.out, product.a @ product.b)


def test_what_is_refused(few, launched):
    few(8)
    config = Config(128, 32, 5)
    for made, message in (
        (task(200, 512), "no turn of wide tiles, or nothing is left over"),
        (task(200, 1024), "no turn of wide tiles, or nothing is left over"),
        (task(200, 1024 + 768), "10 narrower tiles are more than a turn"),
        (task(200, 1025), "b can't be described"),
        (task(200, 1184)._replace(scale=2.0), "nothing may be done to the product"),
    ):
        with pytest.raises(ValueError, match=message):
            remainder.launch(made, config)
    with pytest.raises(ValueError, match="no narrower tile has 128 and 48 columns"):
        remainder.launch(task(200, 1184), Config(128, 48, 5))
    with pytest.raises(ValueError, match="no turn of wide tiles"):
        remainder.launch(task(200, 512))
    assert not launched


def test_too_little_shared_memory_is_refused(monkeypatch, launched):
    small = dataclasses.replace(
        here.current(), sms=4, shared_memory_per_block=99 * 1024
    )
    monkeypatch.setattr(here, "current", lambda: small)
    product = task(200, 1184)
    assert remainder.room(product, Config(128, 32, 5)) is None
    with pytest.raises(ValueError, match="shared memory doesn't hold the tiles"):
        remainder.launch(product, Config(128, 32, 5))
    with pytest.raises(ValueError, match="shared memory doesn't hold the tiles"):
        remainder.launch(product)


def test_the_choice_has_the_least_waste(few):
    few(132)
    found = remainder.config_for(task_for(LEFT_OVER, "NT", BF16))
    assert found == Config(128, 32, 5)
    assert remainder.config_for(
        task_for(Shape(512, 10240, 8192), "NT", BF16)
    ) == Config(64, 0, 8)


def test_other_hardware(device):
    if here.has("wgmma"):
        pytest.skip("here it runs")
    a = torch.zeros(16, 16, dtype=BF16, device=device)
    with pytest.raises(here.HardwareError, match="warp-group matrix instructions"):
        remainder.matmul(a, a)


@pytest.mark.gpu
class TestOnAGPU:
    @pytest.fixture
    def hopper(self, device):
        if not here.has("wgmma"):
            pytest.skip("needs Hopper's tensor cores")
        return device

    def make(self, m, n, k, dtype, turn, device):
        a, b = torch.randn(m, k, device=device), torch.randn(k, n, device=device)
        a, b = a.to(dtype), b.to(dtype)
        a = a.t().contiguous().t() if turn[0] == "T" else a
        return a, b.t().contiguous().t() if turn[1] == "T" else b

    @each_config
    @pytest.mark.parametrize("turn", ["NN", "NT", "TN", "TT"])
    def test_every_configuration(self, config, turn, hopper):
        sms, width = here.current().sms, config.first + config.second
        # A turn of wide tiles, and a part of one of narrower ones, ragged in each side.
        n = 256 * (sms // 3) + width * (sms // 3 - 1) - 8
        dtype = BF16 if turn[0] == "N" else FP16
        a, b = self.make(376, n, 328, dtype, turn, hopper)
        with testing.guarded():
            made, _ = task_of(a, b)
            remainder.launch(made, config)
        accuracy.check(made)

    def test_20_repeats(self, hopper):
        a, b = self.make(*LEFT_OVER, BF16, "NT", hopper)
        testing.deterministic(lambda: remainder.matmul(a, b))
