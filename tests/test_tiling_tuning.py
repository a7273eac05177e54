"""Every way that the tuner tries is right, and what ships is among them."""

import pytest
import torch

from tilebook import device, measure
from tilebook.tiling import aligned, blur, tuning


class Tried:
    """In place of a bench: calls a few ways, on what it is told to."""

    def __init__(self, every):
        self.every = every
        self.names = []

    def compare(self, *, providers, make_inputs, reference, **_):
        self.names.append(list(providers))
        if not device.interpreting():
            return
        inputs = make_inputs()
        expected = reference(*inputs)
        for name, way in list(providers.items())[:: self.every]:
            assert isinstance(way, measure.Provider)
            got = way.fn(*inputs)
            assert got.shape == expected.shape, name
            assert torch.allclose(got.double(), expected.double(), atol=1e-3), name


@pytest.mark.parametrize(
    ("contest", "every"),
    [("pointers", 7), ("engines", 5), ("stencils", 9), ("sums", 3)],
)
def test_ways_are_right(contest, every, monkeypatch):
    monkeypatch.setattr(tuning, "SQUARES", ((16, 48),) * 5)
    monkeypatch.setattr(tuning, "THIN", ())
    monkeypatch.setattr(tuning, "TALL", ((70, 5),))
    monkeypatch.setattr(tuning, "DTYPES", {2: torch.bfloat16})
    monkeypatch.setattr(blur, "WEIGHTS", {3: (1, 2, 1)})
    pictures = tuning._matrix
    monkeypatch.setattr(
        tuning,
        "_matrix",
        lambda shape, dtype: pictures(
            (12, 8) if max(shape) > 99 and shape[0] % 4 == 0 else
            (9, 7) if max(shape) > 99 else shape,
            dtype,
        ),
    )  # fmt: skip
    tried = Tried(every)
    tuning.CONTESTS[contest](tried)
    assert all(names[0] == "shipped" for names in tried.names)
    assert all(len(names) > 5 for names in tried.names)


def test_layouts_are_tried_beside_what_ships():
    tried = Tried(1)
    tried.compare = lambda *, providers, **_: tried.names.append(list(providers))
    tuning.layouts(tried)
    assert all(names[:2] == ["shipped", "explicit"] for names in tried.names)


def test_a_setting_ends_with_the_call():
    before = aligned.GROUP
    seen = tuning.setting(aligned, lambda: aligned.GROUP, GROUP=3)
    assert seen() == 3
    assert before == aligned.GROUP
    with pytest.raises(ZeroDivisionError):
        tuning.setting(aligned, lambda: 1 / 0, GROUP=3)()
    assert before == aligned.GROUP
