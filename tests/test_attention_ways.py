"""Which kernel serves an attention, and that gradients follow whichever did."""

import pytest
import torch

from tilebook import attention as chapter
from tilebook import device as here
from tilebook import schedules, testing
from tilebook.attention import (
    attention,
    choose,
    evidence,
    folded,
    forward,
    launching,
    reference,
    ways,
)
from tilebook.attention.trials import Shape, agree, drawn
from tilebook.matmul.evidence import launches

BF16, FP16 = torch.bfloat16, torch.float16


@pytest.fixture
def on_a_hopper(monkeypatch):
    monkeypatch.setattr(here, "has", lambda feature: feature == "wgmma")


def task(d=128, dtype=BF16, rows=1024, keys=1024, **told):
    made = evidence.task_for(d, dtype, length=rows, **told)
    if rows == keys:
        return made
    batch, heads, _, _ = made.k.shape
    k, v = (torch.empty(batch, heads, keys, d, dtype=dtype, device="meta"),) * 2
    return made._replace(k=k, v=v)


@pytest.mark.parametrize(
    "told",
    [
        {}, {"right": 0}, {"d": 64}, {"d": 256}, {"dtype": FP16, "d": 96},
        {"right": 0, "left": 100}, {"shared": 8, "right": 0}, {"rows": 64},
        {"bottom": True, "right": 0}, {"rows": 100, "keys": 7, "right": 0},
        {"bottom": True, "rows": 100, "keys": 777}, {"rows": 1000, "keys": 4097},
        {"left": 100, "rows": 100, "keys": 200}, {"left": 999, "rows": 1000, "keys": 7},
        {"right": 1023}, {"left": 4 << 30, "right": 0}, {"dropout": 1e-9},
    ],
)  # fmt: skip
def test_hopper_serves(on_a_hopper, told):
    made = task(**told)
    assert ways.refusal(made) is None
    assert ways.told(made).startswith("folded: part=64")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"cap": 30.0}, "has a cap"),
        ({"slopes": torch.ones(1)}, "has slopes"),
        ({"sinks": torch.ones(1)}, "has sinks"),
        ({"bias": torch.ones(1)}, "has a bias"),
        ({"dropout": 0.1}, "has dropout"),
        ({"cu_q": torch.ones(1)}, "has packed sequences"),
        ({"rows": 63}, "63 queries leave"),
        ({"keys": 0}, "no keys"),
        ({"dtype": torch.float32}, "bfloat16 or float16"),
        ({"d": 100}, "multiple of 8"),
        ({"e": 64}, "shape of k"),
        ({"scale": -1.0}, "scale must be above 0"),
        ({"right": 3}, "no or all later keys"),
        ({"left": 5, "keys": 100}, "a key for each query"),
        ({"right": 0, "bottom": True, "keys": 2000}, "count from the last key"),
        ({"left": 5, "bottom": True, "keys": 2000}, "count from the last key"),
    ],
)
def test_the_general_kernel_serves(on_a_hopper, told, reason):
    scale = told.pop("scale", None)
    made = task(**told)
    if scale is not None:
        made = made._replace(scale=scale)
    assert reason in ways.refusal(made)


def test_strides_that_nothing_describes(on_a_hopper):
    made = task()
    apart = torch.empty(4, 16, 1024, 129, dtype=BF16, device="meta")[..., :128]
    assert "q can't be described" in ways.refusal(made._replace(q=apart))
    assert "out can't be described" in ways.refusal(made._replace(out=apart))


def test_windows_that_leave_nothing_out_are_none(on_a_hopper):
    made = ways.on_hopper(task(left=1023, right=1023))
    assert (made.left, made.right) == (None, None)
    made = ways.on_hopper(task(left=1022, right=1022))
    assert (made.left, made.right) == (1022, 1022)
    # One key: later ones there are none, but a causal mask stays one.
    assert ways.on_hopper(task(keys=1, right=0)).right == 0


def test_other_devices_have_the_general_kernel(monkeypatch):
    asked = []
    monkeypatch.setattr(here, "has", lambda feature: asked.append(feature))
    assert "no tensor cores of a Hopper" in ways.refusal(task())
    assert asked == ["wgmma"]


class TestWhich:
    def test_it_names_kernel_and_reason(self, on_a_hopper, device, monkeypatch):
        monkeypatch.setattr(choose.device, "has", lambda feature: feature == "wgmma")
        q = torch.zeros(1, 2, 100, 64, dtype=BF16, device=device)
        served = chapter.which(q, q, q, causal=True)
        assert served.startswith("folded: part=64, parts=")
        bias = torch.zeros(100, 100, dtype=BF16, device=device)
        assert "(the general kernel has a bias)" in chapter.which(q, q, q, bias=bias)
        assert chapter.which(q[:0], q[:0], q[:0]) == "nothing to launch"
        wide = q.double()
        assert chapter.which(wide, wide, wide).startswith("reference")

    def test_it_refuses_what_attention_refuses(self):
        q = torch.zeros(1, 2, 8, 16)
        with pytest.raises(ValueError, match="dropout must be from 0 to 1"):
            chapter.which(q, q, q, dropout=2.0)
        with pytest.raises(ValueError, match="bias must broadcast"):
            chapter.which(q, q, q, bias=torch.zeros(7))
        with pytest.raises(TypeError, match="k must be"):
            chapter.which(q, None, q)


def by_the_definition(asked):
    """What `folded.launch` would write."""

    def launch(task):
        asked.append(task)
        out, lse = reference.attention(
            *(x.double() for x in (task.q, task.k, task.v)), scale=task.scale,
            left=task.left, right=task.right,
        )  # fmt: skip
        task.out.copy_(out)
        task.lse.copy_(lse)

    return launch


def unreachable(task):
    raise AssertionError("the general kernel was launched")


@pytest.mark.parametrize("options", [{}, {"right": 0}, {"left": 9, "right": 0}])
@pytest.mark.parametrize("shared", [1, 2])
def test_gradients_take_the_logarithms_of_the_kernel_that_served(
    on_a_hopper, device, monkeypatch, options, shared
):
    asked = []
    monkeypatch.setattr(folded, "launch", by_the_definition(asked))
    monkeypatch.setattr(forward, "launch", unreachable)
    given = drawn(Shape(1, 2, shared, 66, 66, 16, 16), BF16, device)
    agree(given, **options)
    (made,) = asked
    assert (made.left, made.right) == (options.get("left"), options.get("right"))
    # Wrong logarithms would be seen.
    monkeypatch.setattr(folded, "launch", shifted(by_the_definition([])))
    with pytest.raises(AssertionError):
        agree_on_gradients(given)


@pytest.mark.parametrize("options", [{}, {"right": 0}, {"left": 9, "right": 0}])
def test_hoppers_kernel_and_its_gradients_as_one(
    on_a_hopper, device, monkeypatch, options
):
    """The kernel's own Python, in an order that barriers allow."""
    if device.type == "cuda":
        pytest.skip("a card runs the kernel itself")
    real, small = folded.launch, launching.Config(16, 2, 16, 2, 2)

    def launch(task):
        # Other threads would note what they do for a gradient.
        plain = task._replace(**{x: getattr(task, x).detach() for x in "qkv"})
        (found,) = launches(lambda wrap: real(plain._replace(wrap=wrap), small))
        schedules.run(found.kernel, (2,), *found.args, **found.meta, seed=5)

    monkeypatch.setattr(launching, "WIDTHS", (16, 32, 64, 128, 256))
    monkeypatch.setattr(folded, "launch", launch)
    monkeypatch.setattr(forward, "launch", unreachable)
    agree(drawn(Shape(1, 2, 2, 70, 70, 16, 16), BF16, device), **options)


def shifted(launch):
    def wrong(task):
        launch(task)
        task.lse.add_(0.5)

    return wrong


def agree_on_gradients(given):
    leaves = [x.detach().requires_grad_() for x in given]
    out = attention(*leaves, causal=True, deterministic=True)
    grads = torch.autograd.grad(out.square().sum(), leaves)
    wide = [x.detach().double().requires_grad_() for x in given]
    exact, _ = reference.attention(*wide, scale=0.25, right=0)
    theirs = torch.autograd.grad(exact.square().sum(), wide)
    for found, want in zip(grads, theirs, strict=True):
        assert testing.error(found, want) < 2.0**-5


def test_right_logarithms_give_right_gradients(on_a_hopper, device, monkeypatch):
    monkeypatch.setattr(folded, "launch", by_the_definition([]))
    agree_on_gradients(drawn(Shape(1, 2, 1, 66, 66, 16, 16), BF16, device))


def test_an_option_goes_to_the_general_kernel(on_a_hopper, device, monkeypatch):
    def refused(task):
        raise AssertionError("Hopper's kernel was launched")

    monkeypatch.setattr(folded, "launch", refused)
    given = drawn(Shape(1, 2, 1, 66, 66, 16, 16), BF16, device)
    agree(given, backward=False, cap=5.0)
    agree(given, backward=False, bottom=True, right=0, sinks=torch.zeros(2))


@pytest.mark.gpu
@pytest.mark.parametrize("length", [64, 1000, 4097])
@pytest.mark.parametrize("d", [64, 128, 256])
def test_on_a_card_it_serves_and_has_gradients(device, length, d):
    if not here.has("wgmma"):
        pytest.skip("needs Hopper's tensor cores")
    for options in ({}, {"right": 0}, {"left": 100, "right": 0}):
        given = drawn(Shape(1, 4, 2, length, length, d, d), BF16, device)
        window = (options.get("left"), options.get("right"))
        assert chapter.which(*given, window=window).startswith("folded")
        agree(given, **options)
