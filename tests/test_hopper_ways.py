"""The race with Hopper's kernels: who enters, who serves unmeasured, who falls back."""

import dataclasses
import types

import pytest
import torch

from tilebook import device, hopper, ops
from tilebook.hopper import folded, launching
from tilebook.hopper import ways as field
from tilebook.matmul import (
    choose,
    described,
    matmul,
    operands,
    ordered,
    remembered,
    searching,
    split,
    ways,
)
from tilebook.matmul.evidence import task_for
from tilebook.matmul.shapes import Shape
from tilebook.measure.timing import Samples

LARGE = Shape(8192, 8192, 8192)
OWN = set(field.TILED) | {"widths"}


@pytest.fixture
def card(monkeypatch):
    """An H100, for whoever asks what is here."""
    here = dataclasses.replace(
        device.current(),
        slug="h100-sxm",
        sms=132,
        shared_memory_per_block=227 * 1024,
        shared_memory_per_sm=228 * 1024,
    )
    monkeypatch.setattr(device, "current", lambda: here)
    monkeypatch.setattr(device, "has", lambda feature: True)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("shape", [LARGE, Shape(512, 10240, 8192), Shape(64, 4096, 64)])
def test_each_kernel_of_the_chapter_enters_in_a_way_that_fits(shape, layout):
    task = task_for(shape, layout, torch.bfloat16)
    found = ways.entrants(task, "hopper")
    assert len(set(found)) == len(found) <= field.ENTRANTS
    assert {way.kernel for way in found} >= OWN
    left_over = shape == Shape(512, 10240, 8192)
    assert ("remainder" in {way.kernel for way in found}) == left_over
    for way in found:
        assert ways.read([way.kernel, list(way.config)], "hopper") == way
        if way.kernel in field.TILED:
            config = launching.Config(*way.config)
            parts = field.GROUPS.get(way.kernel, 2)
            assert launching.shared_bytes(config, parts) <= 227 * 1024
    # The earlier chapter's race is what it was.
    assert not {way.kernel for way in ways.entrants(task)} & {*OWN, "remainder"}


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("shape", "dtype", "more"),
    [
        (LARGE, torch.float32, {}),
        (LARGE, torch.int8, {}),
        (Shape(64, 63, 64), torch.bfloat16, {}),
        (LARGE, torch.bfloat16, {"scale": 2.0}),
        (LARGE, torch.bfloat16, {"activation": "relu"}),
    ],
)
def test_what_they_refuse_is_raced_without_them(shape, dtype, more):
    task = task_for(shape, "NT", dtype)._replace(**more)
    assert launching.refusal(task)
    assert not {way.kernel for way in ways.entrants(task, "hopper")} & OWN
    assert field.rule(task, described) is described


def test_elsewhere_nobody_of_them_enters(card, monkeypatch):
    monkeypatch.setattr(device, "has", lambda feature: feature != "wgmma")
    task = task_for(LARGE, "NT", torch.bfloat16)
    assert not {way.kernel for way in ways.entrants(task, "hopper")} & OWN
    assert field.rule(task, described) is described


@pytest.mark.usefixtures("card")
def test_unmeasured_the_best_by_design_serves():
    task = task_for(LARGE, "NT", torch.bfloat16)
    assert field.rule(task, choose.choose(task)) is folded
    assert field.rule(task, ordered) is ordered
    assert field.rule(task, split) is split


class Clock:
    """Every way takes as long as its kernel's name."""

    def cold(self, calls, seconds):
        (call,) = calls
        return Samples([float(len(call.args[1].kernel))])

    def synchronize(self):
        pass


@pytest.fixture
def raced(monkeypatch, tmp_path):
    """A card's permission to race two ways; notes what is launched, by field."""
    launched = []
    found = {
        "matmul": [ways.Way("described", (128, 256, 64, 8, 3, 2, True, 8))],
        "hopper": [ways.Way("folded", (128, 256, 64, 4, 2, 8))],
    }
    monkeypatch.setenv(remembered.FOLDER, str(tmp_path))
    monkeypatch.setattr(ways, "entrants", lambda task, name: found[name])
    monkeypatch.setattr(
        ways, "launch", lambda task, way, name: launched.append((way.kernel, name))
    )
    monkeypatch.setattr(searching, "may_search", lambda task: True)
    monkeypatch.setattr(searching, "here", Clock)
    monkeypatch.setattr(searching.digest, "of_modules", lambda names: {names[0]: "0"})
    searching._memory.cache_clear()
    yield types.SimpleNamespace(launched=launched, folder=tmp_path)
    searching._memory.cache_clear()


def test_each_field_asks_and_remembers_for_itself(raced):
    a, b = torch.randn(8, 8).bfloat16(), torch.randn(8, 8).bfloat16()
    matmul(a, b)
    assert raced.launched[-1] == ("described", "matmul")
    hopper.matmul(a, b)
    assert raced.launched[-1] == ("folded", "hopper")
    assert {path.name for path in raced.folder.iterdir()} == {"matmul", "hopper"}
    assert hopper.which(a, b).startswith("folded: block_m=128, block_n=256")
    with searching.forgetting():
        assert set(ways.FIELDS) >= {"matmul", "hopper"}
        matmul(a, b)
        assert raced.launched[-1] == ("described", "matmul")


def test_gradients_are_raced_in_the_same_field(raced):
    a, b = (torch.randn(8, 8).bfloat16().requires_grad_() for _ in range(2))
    hopper.matmul(a, b).sum().backward()
    assert raced.launched[-3:] == [("folded", "hopper")] * 3


def test_the_roof_multiplies_here_and_says_by_what():
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(2, 20, 24, generator=generator)
    b = torch.randn(24, 16, generator=generator)
    assert ops.matmul is hopper.matmul
    torch.testing.assert_close(ops.matmul(a, b), a @ b, rtol=1e-4, atol=1e-4)
    said = hopper.which(a[0], b)
    chosen = choose.choose(operands.Task(a[0], b, torch.empty(20, 16)))
    assert said == f"{chosen.__name__.rpartition('.')[2]}, by a rule"
    assert hopper.which(a[0][:0], b) == "nothing to launch"
    with pytest.raises(ValueError, match="as many columns as b has rows"):
        hopper.which(a[0], b[:-1])


def test_compiled_it_is_one_operator():
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    graph = torch.compile(ops.matmul, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(graph(a, b), a @ b, rtol=1e-4, atol=1e-4)
