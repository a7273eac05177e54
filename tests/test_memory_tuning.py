"""Every way that the tuner tries is a right copy."""

import torch

from tilebook import device, measure
from tilebook.memory import tuning


class Tried:
    """In place of a bench: calls each way once, on short vectors."""

    def __init__(self):
        self.count = 0

    def compare(self, *, providers, reference, **more):
        if not device.interpreting():
            return
        for name, way in providers.items():
            x = torch.randn(3001, device=device.torch_device())
            out = torch.full_like(x, float("nan"))
            way.fn(x, out=out)
            assert torch.equal(out, reference(x)), name
            self.count += 1


def test_ways_of_copying(monkeypatch):
    monkeypatch.setattr(tuning, "SIZES", (3001,) * 6)
    tried = Tried()
    monkeypatch.setattr(tuning, "_contest", lambda bench, ways, *_: bench.compare(
        providers=ways, reference=torch.clone
    ))  # fmt: skip
    tuning.copies(tried)
    tuning.loops(tried)
    assert tried.count > 200 or not device.interpreting()


def test_shipped_is_among_them_and_rings_fit():
    seen = {}

    class Noted:
        def compare(self, *, providers, **more):
            seen.update(providers)

    for contest in tuning.CONTESTS.values():
        contest(Noted())
        assert "shipped" in seen
        assert all(isinstance(way, measure.Provider) for way in seen.values())
    assert sum(name.startswith("rows=") for name in seen) > 20
