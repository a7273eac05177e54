"""Argument checks: what they let pass, and what their messages say."""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tilebook import check, device


def raises(error, message):
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def test_a_fitting_tensor_comes_back():
    x = torch.zeros(2, 3)
    fits = {"dtype": torch.float32, "ndim": 2, "shape": (2, 3), "device": "cpu"}
    assert check.tensor(x, "x", **fits, contiguous=True) is x
    dtypes = (torch.float32, torch.bfloat16)
    assert check.tensor(x, "x", dtype=dtypes, ndim=(1, 2), shape=(None, "n")) is x


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "None"), ([1.0], "list"), (1.0, "float"), (torch.float32, "torch.dtype")],
)
def test_not_a_tensor(value, shown):
    with raises(TypeError, f"weight must be a torch.Tensor, got {shown}"):
        check.tensor(value, "weight")


def test_wrong_dtype():
    x = torch.zeros(2, dtype=torch.int64)
    with raises(TypeError, "x must be float32, got int64"):
        check.tensor(x, "x", dtype=torch.float32)
    with raises(TypeError, "x must be float32, float16 or bfloat16, got int64"):
        check.tensor(x, "x", dtype=(torch.float32, torch.float16, torch.bfloat16))


def test_wrong_rank():
    x = torch.zeros(2, 3)
    with raises(ValueError, "x must have 1 dimension, got 2 (shape (2, 3))"):
        check.tensor(x, "x", ndim=1)
    with raises(ValueError, "x must have 3 or 4 dimensions, got 2 (shape (2, 3))"):
        check.tensor(x, "x", ndim=(3, 4))


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((2, 4), "(2, 4)"),
        ((None, 2), "(*, 2)"),
        (("n", "n"), "(n, n)"),
        ((6,), "(6,)"),
        ((), "()"),
    ],
)
def test_wrong_shape(shape, shown):
    with raises(ValueError, f"x must have shape {shown}, got (2, 3)"):
        check.tensor(torch.zeros(2, 3), "x", shape=shape)


def test_wrong_device():
    with raises(ValueError, "x must be on cpu, got meta"):
        check.tensor(torch.zeros(2, device="meta"), "x", device="cpu")
    with raises(ValueError, "x must be on cuda:1, got cpu"):
        check.tensor(torch.zeros(2), "x", device="cuda:1")


def test_not_contiguous():
    message = "x must be contiguous, got strides (1, 3) for shape (3, 2)"
    with raises(ValueError, message):
        check.tensor(torch.zeros(2, 3).T, "x", contiguous=True)


def test_same():
    x, y = torch.zeros(2), torch.zeros(3)
    check.same_shape(x=x, out=x)
    check.same_dtype(x=x, y=y)
    check.same_device(x=x, y=y)
    with raises(ValueError, "y must have the shape of x, (2,), got (3,)"):
        check.same_shape(x=x, z=x, y=y)
    with raises(TypeError, "y must have the dtype of x, float32, got int32"):
        check.same_dtype(x=x, y=y.int())
    with raises(ValueError, "y must have the device of x, cpu, got meta"):
        check.same_device(x=x, y=y.to("meta"))


def test_positive_int():
    assert check.positive_int(3, "block") == 3
    with raises(TypeError, "block must be an int, got bool"):
        check.positive_int(True, "block")
    with raises(TypeError, "block must be an int, got float"):
        check.positive_int(3.0, "block")
    with raises(ValueError, "block must be at least 1, got 0"):
        check.positive_int(0, "block")


def test_one_of():
    assert check.one_of("rows", "axis", ("rows", "columns")) == "rows"
    with raises(ValueError, "axis must be 'rows' or 'columns', got 'diagonal'"):
        check.one_of("diagonal", "axis", ("rows", "columns"))
    with raises(ValueError, "n must be 1 or 2, got True"):
        check.one_of(True, "n", (1, 2))


def test_runs_here(device):
    x = torch.zeros(2, device=device)
    assert check.runs_here(x, "x") is x
    with raises(TypeError, "x must be a torch.Tensor, got int"):
        check.runs_here(1, "x")
    with pytest.raises(ValueError, match=f"^x must be on {device.type}, because"):
        check.runs_here(x.to("meta"), "x")


@pytest.mark.parametrize(
    ("launches_on", "tensor_on", "message"),
    [
        ("cuda", "cpu", "x must be on cuda, because kernels are compiled for the GPU"),
        ("cpu", "cuda", "x must be on cpu, because kernels are interpreted"),
        (None, "cpu", "x is on cpu, but no kernel can run here"),
    ],
)
def test_runs_here_in_each_mode(monkeypatch, launches_on, tensor_on, message):
    monkeypatch.setattr(device, "launch_device_type", lambda: launches_on)
    with FakeTensorMode():
        x = torch.zeros(2, device=tensor_on)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check.runs_here(x, "x")


def guarded(x, y):
    check.tensor(x, "x", dtype=(torch.float32, torch.bfloat16), ndim=1, shape=("n",))
    check.same_shape(x=x, y=y)
    check.same_dtype(x=x, y=y)
    check.same_device(x=x, y=y)
    check.runs_here(x, "x")
    check.positive_int(x.shape[0], "n")
    return x + y


def test_compiles_without_a_graph_break(device):
    compiled = torch.compile(guarded, backend="eager", fullgraph=True, dynamic=True)
    for n in (4, 7):
        x = torch.randn(n, device=device)
        assert torch.equal(compiled(x, x), x + x)
    # Bad input makes Dynamo fall back to Python, where the message is built.
    with pytest.raises(ValueError, match=r"^y must have the shape of x"):
        torch.compile(guarded, backend="eager")(x, x[:2])


def test_a_view_that_only_says_it_is_negated_is_refused():
    lazy = torch.randn(3, dtype=torch.cfloat).conj().imag
    assert lazy.is_neg()
    with pytest.raises(ValueError, match="x must hold its values"):
        check.tensor(
            lazy.contiguous() if lazy.is_contiguous() else lazy[:1],
            "x",
            contiguous=True,
        )
    check.tensor(lazy.resolve_neg(), "x")


def test_a_nested_tensor_is_refused_before_it_is_asked_for_its_shape():
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    for wanted in ({}, {"ndim": 2}, {"shape": (2, None)}):
        with pytest.raises(ValueError, match="x must be dense and strided"):
            check.tensor(nested, "x", **wanted)
