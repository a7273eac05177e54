"""Guard bands, gaps and poison: each catches the write, or its absence."""

import contextlib

import pytest
import torch
import triton
import triton.language as tl

from tilebook import device as here
from tilebook import testing
from tilebook.testing import poison

DTYPES = (torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@triton.jit
def fill_kernel(out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, 1.0, mask=offs < n)


def at(tensor, offset, value=1):
    """Write where an unmasked store would: outside the tensor, in its storage."""
    place = tensor.storage_offset() + offset
    tensor.as_strided((1,), (1,), place).fill_(value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_guard_is_a_copy_that_says_who_wrote_beside_it(dtype, device):
    x = (torch.randn(6, 5) * 9).to(dtype).to(device)
    made = testing.guard(x, name="x")
    assert torch.equal(made.tensor, x)
    assert made.tensor.stride() == x.stride()
    assert made.tensor.data_ptr() % 16 == 0
    made.tensor.zero_()
    made.check()
    for offset, side in ((30, "past its end"), (-1, "before its start")):
        made = testing.guard(x, name="x")
        at(made.tensor, offset)
        with pytest.raises(testing.GuardError, match=rf"^x .*\(6, 5\).*1 .*{side}"):
            made.check()


def test_the_message_counts_and_measures():
    made = testing.guard(torch.zeros(10))
    for offset in (12, 13, 14):
        at(made.tensor, offset)
    with pytest.raises(testing.GuardError, match=r"3 elements .* element 3 after its"):
        made.check()


def test_gaps_of_a_strided_tensor_are_guarded_too():
    for _, laid in testing.layouts(torch.randn(4, 6)):
        made = testing.guard(laid)
        assert made.tensor.stride() == laid.stride()
        assert made.tensor.data_ptr() % 16 == laid.data_ptr() % 16
        assert torch.equal(made.tensor, laid)
        made.tensor.fill_(2.0)
        made.check()
    wide = torch.zeros(4, 12)[:, ::2]
    made = testing.guard(wide)
    at(made.tensor, 13)
    with pytest.raises(
        testing.GuardError, match=r"between its elements .*\(12, 2\).*13"
    ):
        made.check()


def test_guard_keeps_expanded_dimensions_and_requires_grad():
    x = torch.arange(3.0).expand(4, 3)
    made = testing.guard(x)
    assert made.tensor.stride() == (0, 1)
    assert torch.equal(made.tensor, x)
    made.check()
    assert testing.guard(torch.ones(2, requires_grad=True)).tensor.requires_grad


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2)], ids=str)
def test_guards_of_small_shapes(shape):
    made = testing.guard(torch.ones(shape))
    made.check()
    at(made.tensor, made.tensor.numel())
    with pytest.raises(testing.GuardError, match="past its end"):
        made.check()


FACTORIES = {
    "empty": lambda x: torch.empty(4, 6, device=x.device),
    "empty of a tuple": lambda x: torch.empty((4, 6), device=x.device),
    "empty_like": lambda x: torch.empty_like(x),
    "empty_strided": lambda x: torch.empty_strided((4, 6), (1, 4), device=x.device),
    "empty_permuted": lambda x: torch.empty_permuted((4, 6), (1, 0), device=x.device),
    "new_empty": lambda x: x.new_empty(4, 6),
    "new_empty_strided": lambda x: x.new_empty_strided((4, 6), (7, 1)),
}


@pytest.mark.parametrize("make", FACTORIES.values(), ids=FACTORIES.keys())
def test_guarded_catches_allocations_however_they_are_made(make, device):
    x = torch.ones(4, 6, device=device)
    plain = make(x)
    with testing.guarded() as guards:
        out = make(x)
        assert len(guards) == 1
        assert (out.shape, out.stride()) == (plain.shape, plain.stride())
        assert (out.dtype, out.device) == (plain.dtype, plain.device)
        assert bool(guards[0].untouched().all())
        out[1] = 3.0
        assert int(guards[0].untouched().sum()) == 18
    beyond = 1 + sum((n - 1) * s for n, s in zip(out.shape, out.stride(), strict=True))
    with pytest.raises(testing.GuardError, match="past its end"), testing.guarded():
        at(make(x), beyond)


def test_guarded_puts_torch_back_also_after_an_exception():
    before = [torch.empty, torch.empty_like, torch.Tensor.new_empty]
    with contextlib.suppress(KeyError), testing.guarded():
        assert torch.empty is not before[0]
        raise KeyError
    assert [torch.empty, torch.empty_like, torch.Tensor.new_empty] == before
    assert "new_empty" not in vars(torch.Tensor)


def test_an_exception_within_is_not_hidden_by_a_guard():
    def spoil_and_raise():
        at(torch.empty(3), 3)
        raise KeyError("the first mistake")

    with pytest.raises(KeyError, match="first"), testing.guarded():
        spoil_and_raise()


def test_guarded_leaves_alone_what_has_no_memory_of_its_own():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with testing.guarded() as guards:
        assert torch.empty(3, device="meta").is_meta
        with FakeTensorMode():
            assert type(torch.empty(3)) is not torch.Tensor
        out = torch.zeros(2)
        assert torch.empty(5, out=out) is out
        assert torch.empty(2, dtype=torch.complex64).is_complex()
    assert guards == []


def test_guarded_tensors_are_ordinary_to_autograd():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.empty_like(x).copy_(2 * x)

        @staticmethod
        def backward(ctx, grad):
            return torch.empty_like(grad).copy_(2 * grad)

    x = torch.randn(3, requires_grad=True)
    with testing.guarded():
        out = Double.apply(x)
        assert not out._is_view()
        out.mul_(2).sum().backward()
        assert torch.empty(2, requires_grad=True).requires_grad
    assert x.grad.tolist() == [4.0, 4.0, 4.0]


def test_guarded_contexts_nest():
    with testing.guarded() as outer:
        torch.empty(2)
        with testing.guarded() as inner:
            torch.empty(3)
        torch.empty(4)
    assert [g.tensor.numel() for g in outer] == [2, 4]
    assert [g.tensor.numel() for g in inner] == [3]


def test_a_kernel_that_leaves_its_tail_unwritten(device):
    with testing.guarded():
        out = torch.empty(1000, device=device)
        fill_kernel[(1000 // 256,)](out, 1000, BLOCK=256)
    with pytest.raises(AssertionError, match="last 232 elements were never written"):
        testing.assert_close(out, torch.ones_like(out).double())


def test_a_kernel_that_writes_its_neighbour(device):
    """The interpreter raises at the store, a GPU is found out by the band."""
    with testing.guarded():
        fill_kernel[(4,)](torch.empty(1000, device=device), 1000, BLOCK=256)
    found = pytest.raises(Exception, match=r"past its end|which has 1000 elements")
    with found, testing.guarded():
        fill_kernel[(4,)](torch.empty(1000, device=device), 1024, BLOCK=256)


@pytest.mark.parametrize("n", [1, 6, 3000, 100_000])
def test_a_tensor_that_torch_resized_is_its_own(n, device):
    x = torch.arange(float(2 * n), device=device).view(2, n)
    with testing.guarded() as guards:
        out = torch.empty(0, device=device)
        assert torch.add(x, 1, out=out) is out
        turned = torch.empty((0, 0), device=device)
        torch.add(x.t(), 1, out=turned)
        grown = torch.empty(3, device=device).fill_(1.0).resize_(n)
        grown[3:] = 2.0
        gone = torch.empty(3, device=device).fill_(1.0).resize_(0)
        wide = torch.empty_strided((2, 3), (7, 2), device=device).fill_(1.0)
        wide.resize_(3, 5).fill_(1.0)
        other = torch.empty(0, device=device).set_(torch.ones(9, device=device))
        other.unsqueeze_(0)
    assert len(guards) == 6
    assert torch.equal(out, x + 1)
    assert torch.equal(turned, x.t() + 1)
    assert gone.numel() == 0
    assert other.tolist() == [[1.0] * 9]


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("offset", [0, -1, 5])
def test_beside_an_empty_and_beside_a_resized_tensor_nothing_may_be_written(
    resize, offset
):
    def spoil():
        out = torch.empty(0)
        if resize:
            torch.add(torch.ones(4), 1, out=out)
        at(out, offset + (out.numel() if offset >= 0 else 0))

    side = "before its start" if offset < 0 else "past its end"
    with pytest.raises(testing.GuardError, match=side), testing.guarded():
        spoil()


def test_between_the_elements_of_a_resized_tensor_nothing_may_be_written():
    def spoil(offset):
        out = torch.empty_strided((2, 2), (8, 1)).fill_(1.0)
        out.resize_(2, 1).fill_(1.0)
        at(out, offset)

    with testing.guarded():
        spoil(9)
    with pytest.raises(testing.GuardError, match="between"), testing.guarded():
        spoil(5)


def test_a_kernel_that_writes_past_an_empty_tensor(device):
    if not here.interpreting():
        pytest.skip("an empty tensor's address is 0: on a GPU the process is done for")

    def launch():
        fill_kernel[(1,)](torch.empty(0, device=device), 8, BLOCK=8)

    found = pytest.raises(Exception, match=r"past its end|which has 0 elements")
    with found, testing.guarded():
        launch()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_arithmetic_makes_no_poison(dtype):
    made = torch.tensor([float("nan"), float("inf"), 0.0], dtype=dtype)
    for values in (made, made - made, made * 0, -made, made.float().to(dtype)):
        assert not bool(poison.untouched(values).any())


def test_integer_poison_changes_from_use_to_use():
    marks = {poison.fill(torch.empty(1, dtype=torch.uint8)) for _ in range(50)}
    assert len(marks) > 1
    x = torch.empty(5, dtype=torch.int32)
    mark = poison.fill(x)
    assert bool(poison.untouched(x, mark).all())
    assert not bool(poison.untouched(x).any())
