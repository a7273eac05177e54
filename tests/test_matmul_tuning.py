"""Every way that the tuner tries is right, and what ships is among them."""

import pytest
import torch

from tilebook import device, measure
from tilebook.matmul import operands, tuning
from tilebook.matmul.shapes import Shape

SMALL = Shape(24, 40, 48)


class Tried:
    """In place of a bench: calls some ways, on what it is told to."""

    def __init__(self, every):
        self.every = every
        self.names = []

    def compare(self, *, providers, make_inputs, make_output, reference, **_):
        self.names.append(list(providers))
        inputs = make_inputs()
        expected = reference(*(x.double() for x in inputs))
        assert make_output(*inputs).shape == expected.shape
        for name, way in list(providers.items())[:: self.every]:
            assert isinstance(way, measure.Provider)
            got = way.fn(*inputs)
            assert got.shape == expected.shape, name
            close = torch.allclose(got.double(), expected, rtol=0.02, atol=0.05)
            assert close, name


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tuning, "CASES", ((SMALL, "NN"), (SMALL, "TN")))
    monkeypatch.setattr(tuning, "LARGE", ((SMALL, "NT"),))
    monkeypatch.setattr(tuning, "THIN", ((Shape(3, 40, 144), "NT"),))
    ends = ("gelu", "silu_and_mul", "residual")
    monkeypatch.setattr(tuning, "ENDS", tuple((SMALL, end) for end in ends))


@pytest.mark.parametrize(
    ("contest", "every"), [("every", 7), ("large", 17), ("thin", 9), ("ended", 9)]
)
def test_ways_are_right(contest, every):
    tried = Tried(every)
    tuning.CONTESTS[contest](tried)
    for names in tried.names:
        assert names[0] in ("shipped", "cuBLAS, then PyTorch")
        assert len(names) > 8


def test_a_hopper_is_asked_for_descriptors_too(monkeypatch):
    there = device.Device("cuda", "a GPU", "gpu", "cuda", capability=(9, 0), sms=132)
    monkeypatch.setattr(device, "current", lambda: there)
    a = torch.empty(4096, 4096, dtype=torch.bfloat16, device="meta")
    found = tuning.every_way(operands.placed(a, a))
    assert {"ordered", "beside", "described"} <= {way.kernel for way in found}
    more = tuning.more_tiles(operands.placed(a, a))
    assert len(more) > 50
    names = [tuning.named(way) for way in (*found, *more)]
    assert len(set(names)) == len({*found, *more})
