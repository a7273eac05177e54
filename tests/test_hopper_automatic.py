"""The chapter's Triton kernels: interpreted on the CPU, on a GPU as they ship."""

import pytest
import torch

from tilebook import device as here
from tilebook import testing
from tilebook.hopper import automatic, launching, made
from tilebook.hopper.launching import Config
from tilebook.matmul import accuracy
from tilebook.matmul.operands import Task, task_of

RUNGS = (made, automatic)
TURNS = ("NN", "NT", "TN", "TT")
BF16, FP16 = launching.DTYPES
LAUNCHES = 10
"""Of a kernel whose mistakes come and go."""


def name(value):
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return text.rpartition(".")[2]


each_rung = pytest.mark.parametrize("rung", RUNGS, ids=name)
each_turn = pytest.mark.parametrize("turn", TURNS)
every_config = pytest.mark.parametrize(
    ("rung", "config"),
    [(rung, config) for rung in RUNGS for config in rung.CONFIGS],
    ids=lambda value: name(value) if value in RUNGS else "-".join(map(str, value)),
)


@pytest.fixture
def hopper(device):
    if not here.has("wgmma"):
        pytest.skip("needs Hopper's tensor cores")
    return device


def between_nan(rows, columns, dtype, turn, device):
    """Numbers in rows or columns that lie apart, with NaN between and beyond them."""
    if turn == "T":
        return between_nan(columns, rows, dtype, "N", device).t()
    wide = testing.guard(
        torch.full((rows, -(-columns // 8) * 8 + 8), torch.nan, device=device).to(dtype)
    ).tensor
    wide[:, :columns] = torch.randn(rows, columns, device=device).to(dtype)
    return wide[:, :columns]


def operands(shape, dtype, turn, device):
    m, n, k = shape
    return (
        between_nan(m, k, dtype, turn[0], device),
        between_nan(k, n, dtype, turn[1], device),
    )


def launched(rung, a, b, config=None):
    """A product as a rung made it, over poison and between guards."""
    with testing.guarded():
        task, _ = task_of(a, b)
        rung.launch(task, *([config] if config else []))
    return task


class TestInterpreted:
    @each_rung
    @each_turn
    @pytest.mark.parametrize("shape", [(1, 8, 1), (33, 40, 17), (130, 72, 70)], ids=str)
    def test_any_shape(self, rung, turn, shape):
        if here.has("wgmma"):
            pytest.skip("here it is compiled")
        a, b = operands(shape, BF16, turn, "cpu")
        accuracy.check(launched(rung, a, b, Config(64, 64, 32, 2)))

    @pytest.mark.parametrize("pieces", [1, 2])
    def test_in_pieces(self, pieces):
        if here.has("wgmma"):
            pytest.skip("here it is compiled")
        a, b = operands((70, 136, 40), FP16, "NN", "cpu")
        accuracy.check(launched(made, a, b, Config(64, 64, 32, 2, pieces)))

    @each_rung
    def test_what_is_refused(self, rung):
        a, b = operands((64, 64, 64), BF16, "NN", "cpu")
        out = torch.empty(64, 64, dtype=BF16)
        with pytest.raises(ValueError, match="nothing may be done to the product"):
            rung.launch(Task(a, b, out, scale=2.0))
        with pytest.raises(ValueError, match="the result can't be described"):
            rung.launch(Task(a, b[:, :9], torch.empty(64, 16, dtype=BF16)[:, :9]))

    @each_rung
    def test_other_hardware(self, rung):
        if here.has("wgmma"):
            pytest.skip("here it runs")
        a = torch.zeros(16, 16, dtype=BF16)
        with pytest.raises(here.HardwareError, match="warp-group matrix instructions"):
            rung.matmul(a, a)


@pytest.mark.gpu
class TestOnAGPU:
    @each_turn
    @every_config
    @pytest.mark.parametrize(
        "shape", [(512, 512, 512), (1024, 1024, 1024), (1000, 1032, 328)], ids=str
    )
    def test_every_configuration_again_and_again(
        self, rung, config, turn, shape, hopper
    ):
        """What lay on barriers was NaN in every launch, and nowhere twice the same."""
        a, b = operands(shape, BF16, turn, hopper)
        first = launched(rung, a, b, config)
        accuracy.check(first)
        for _ in range(LAUNCHES):
            again = launched(rung, a, b, config)
            assert torch.equal(again.out, first.out)

    @each_turn
    @each_rung
    def test_its_own_choice(self, rung, turn, hopper):
        """Programs with many tiles, and tiles of every kind."""
        for shape in ((4096, 4096, 4096), (136, 264, 72), (2056, 1544, 40)):
            for dtype in (BF16, FP16):
                a, b = operands(shape, dtype, turn, hopper)
                accuracy.check(launched(rung, a, b))

    @each_turn
    @each_rung
    def test_sides_that_no_8_divides(self, rung, turn, hopper):
        for shape in ((1, 8, 1), (129, 72, 33), (517, 264, 1001)):
            a, b = operands(shape, BF16, turn, hopper)
            accuracy.check(launched(rung, a, b))
