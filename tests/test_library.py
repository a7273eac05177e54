"""When a kernel may be launched past PyTorch's dispatcher, and when not."""

import contextlib

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tilebook import device as here
from tilebook import library


def test_plain_tensors_are_eager(device):
    x = torch.randn(4, device=device)
    assert library.eager(x, x[::2], torch.nn.Parameter(x, requires_grad=False))
    assert library.eager()


def test_a_gradient_is_seen(device):
    x = torch.randn(4, device=device)
    leaf = torch.randn(4, device=device, requires_grad=True)
    assert not library.eager(x, leaf)
    assert not library.eager(leaf * 2)
    with torch.no_grad():
        assert library.eager(x, leaf)
    with torch.inference_mode():
        assert library.eager(x)


def test_a_subclass_is_seen(device):
    class Tagged(torch.Tensor):
        pass

    x = torch.randn(4, device=device)
    assert not library.eager(x, x.as_subclass(Tagged))


def test_a_lazily_negated_view_is_seen(device):
    z = torch.randn(4, 2, device=device)
    assert not library.eager(torch.view_as_complex(z).conj().imag)


def test_transformations_are_seen(device):
    seen = []

    def look(x):
        seen.append(library.eager(x))
        return x.sum()

    x = torch.randn(3, 4, device=device)
    torch.vmap(look)(x)
    torch.func.grad(look)(x)
    assert seen == [False, False]


def test_modes_and_tracing_are_seen(device):
    seen = []

    def look(x):
        seen.append(library.eager(x))
        return x * 2

    x = torch.randn(4, device=device)
    # Tracing with real tensors: no subclass would tell.
    make_fx(look)(x)
    with torch._subclasses.FakeTensorMode() as mode:
        look(mode.from_tensor(x))
    assert seen == [False, False]

    @torch.compile(fullgraph=True, backend="eager")
    def branch(x):
        return x + 1 if library.eager(x) else x - 1

    assert torch.equal(branch(x), x - 1)


def test_forward_mode_is_refused(device):
    x = torch.randn(4, device=device)
    with torch.autograd.forward_ad.dual_level():
        assert not library.eager(x)
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            library.eager(torch.autograd.forward_ad.make_dual(x, x))
    with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        torch.func.jvp(library.eager, (x,), (x,))


def test_forward_mode_is_refused_below_a_mode(device):
    x = torch.randn(4, device=device)
    with torch.autograd.forward_ad.dual_level(), FlopCounterMode(display=False):
        assert not library.eager(x)
        with pytest.raises(NotImplementedError, match="no forward-mode derivative"):
            library.eager(torch.autograd.forward_ad.make_dual(x, x))


def test_the_operator_suits_the_mode():
    @library.operator("tilebook_test::scaled", mutates=("out",))
    def scaled(x: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(2 * x)

    assert scaled._opoverload._schema.arguments[1].alias_info.is_write
    x = torch.randn(3)
    out = torch.empty_like(x)
    scaled(x, out)
    assert torch.equal(out, 2 * x)
    kernel = object()
    if here.interpreting():
        assert library.launchable(kernel) is kernel
    else:
        with pytest.raises(RuntimeError, match=r"triton\.jit"):
            library.launchable(kernel)


def test_nothing_changes_on_the_current_device(device):
    context = library.on(torch.empty(1, device=device))
    assert isinstance(context, contextlib.nullcontext)


def test_a_trace_is_refused_but_not_of_an_operator(device):
    def launched(x):
        with library.on(x):
            return torch.empty_like(x)

    @library.operator("tilebook_test::twice", opaque=True)
    def twice(x: torch.Tensor) -> torch.Tensor:
        with library.on(x):
            return 2 * x

    x, y = torch.randn(4, device=device), torch.randn(4, device=device)
    with pytest.raises(NotImplementedError, match=r"such as tilebook\.ops\.matmul"):
        torch.jit.trace(launched, (x,))
    traced = torch.jit.trace(lambda x: twice(x), (x,))
    assert torch.equal(traced(y), 2 * y)


@pytest.mark.gpu
def test_another_gpu_becomes_current():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    with library.on(torch.empty(1, device="cuda:1")):
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0
