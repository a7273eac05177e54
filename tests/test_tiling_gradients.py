"""`gather`, `scatter`, `scatter_add` and `total` as PyTorch's operators."""

import pytest
import torch

from tilebook import device as here
from tilebook import testing
from tilebook.tiling import indexed, indices, reduce
from tilebook.tiling.blur import blur, blur_operator
from tilebook.tiling.indexed import (
    gather,
    gather_operator,
    scatter,
    scatter_add,
    scatter_operator,
)
from tilebook.tiling.reduce import total, total_operator

gradcheck = torch.autograd.gradcheck


def doubles(*shape, device):
    return torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)


def some_index(rows, columns, size, device, kind=torch.int64):
    return torch.randint(0, size, (rows, columns), dtype=kind, device=device)


def test_registration(device):
    x = torch.randn(3, 4, device=device, requires_grad=True)
    src = torch.randn(3, 5, device=device, requires_grad=True)
    index = some_index(2, 3, 3, device)
    testing.opcheck(gather_operator, x, 1, index)
    testing.opcheck(gather_operator, x.detach().t(), 0, index.t().int())
    testing.opcheck(scatter_operator, x, 0, index, src, True, False)
    testing.opcheck(scatter_operator, x, 1, index.int(), src, False, True)
    testing.opcheck(total_operator, x, 0, 0, 0)
    testing.opcheck(total_operator, x.detach().t(), 1, 2, 4)


def test_registration_of_what_is_empty_or_not_trained_with(device):
    index = some_index(0, 3, 1, device)
    x = torch.ones(2, 3, dtype=torch.int32, device=device)
    testing.opcheck(gather_operator, x, 0, index)
    testing.opcheck(scatter_operator, x, 0, index, x, False, False)
    testing.opcheck(total_operator, x[:0], 0, 0, 0)
    testing.opcheck(total_operator, x.bool(), 1, 0, 0)
    image = torch.zeros(5, 8, dtype=torch.uint8, device=device)
    testing.opcheck(blur_operator, image, 3, "zero")


@pytest.mark.parametrize("dim", [0, 1])
def test_gradients_against_differences(dim, device):
    x, index = doubles(2, 3, device=device), some_index(2, 2, 2, device)
    src = doubles(2, 3, device=device)
    # Named twice: sums for what is gathered, one winner for what is scattered.
    index[0] = index[1] if dim == 0 else index[0, 1]
    calls = [
        (lambda x: gather(x, dim, index), (x,)),
        (lambda x, src: scatter(x, dim, index, src), (x, src)),
        (lambda x, src: scatter_add(x, dim, index, src), (x, src)),
        (lambda x: total(x, dim), (x,)),
    ]
    for call, inputs in calls:
        assert gradcheck(call, inputs)
        assert torch.autograd.gradgradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("dim", [0, 1])
def test_the_gradient_of_scatter_unordered_where_no_two_meet(dim, device):
    x, src = doubles(3, 3, device=device), doubles(3, 3, device=device)
    index = torch.argsort(torch.rand(3, 3, device=device), dim)
    assert gradcheck(lambda x, s: scatter(x, dim, index, s, ordered=False), (x, src))


@pytest.mark.parametrize("dtype", indices.TRAINED, ids=str)
@pytest.mark.parametrize("deterministic", [True, False])
def test_gradients_as_those_of_pytorch(dtype, deterministic, device):
    """In float64, with what is rounded bounded as sums are."""
    x = torch.randn(6, 9, device=device).to(dtype).requires_grad_()
    src = torch.randn(20, 9, device=device).to(dtype).requires_grad_()
    index = some_index(20, 9, 6, device)
    weights = torch.rand(20, 9, device=device).to(dtype)
    small = torch.rand(6, 9, device=device).to(dtype)
    torch.use_deterministic_algorithms(deterministic)
    try:
        ours = [
            *torch.autograd.grad((gather(x, 0, index) * weights).sum(), x),
            *torch.autograd.grad(
                (scatter_add(x, 0, index, src) * small).sum(), (x, src)
            ),
            *torch.autograd.grad((total(x, 0) * small[0]).sum(), x),
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    wide, long = x.detach().double(), src.detach().double()
    wide.requires_grad_(), long.requires_grad_()
    theirs = [
        *torch.autograd.grad((torch.gather(wide, 0, index) * weights).sum(), wide),
        *torch.autograd.grad(
            (torch.scatter_add(wide, 0, index, long) * small).sum(), (wide, long)
        ),
        *torch.autograd.grad((wide.sum(0) * small[0]).sum(), wide),
    ]
    kind = str(dtype).removeprefix("torch.")
    for out, exact in zip(ours, theirs, strict=True):
        assert out.dtype == dtype
        testing.assert_close(out, exact, length=20, accumulate=kind)


@pytest.mark.parametrize("dim", [0, 1])
def test_only_what_stays_has_a_gradient(dim, device):
    x = torch.zeros(2, 2, device=device, requires_grad=True)
    src = torch.ones(3, 3, device=device, requires_grad=True)
    index = torch.tensor([[0, 0], [0, 0], [5, 1]], device=device)
    index = index if dim == 0 else index.t()
    weights = torch.tensor([[2.0, 3], [4, 5]], device=device)
    weights = weights if dim == 0 else weights.t()
    (scatter(x, dim, index, src) * weights).sum().backward()
    kept = torch.tensor([[0.0, 0], [4, 0]], device=device)
    assert torch.equal(x.grad, kept if dim == 0 else kept.t())
    taken = torch.tensor([[0.0, 0, 0], [2, 3, 0], [0, 5, 0]], device=device)
    assert torch.equal(src.grad, taken if dim == 0 else taken.t())


def test_an_index_outside_has_no_gradient(device):
    x = torch.ones(2, 3, device=device, requires_grad=True)
    index = torch.tensor([[0, -1, 7]], device=device)
    gather(x, 0, index).sum().backward()
    assert x.grad.tolist() == [[1, 0, 0], [0, 0, 0]]


def test_a_gradient_of_nan_reaches_only_its_own(device):
    x = torch.zeros(2, 1, device=device, requires_grad=True)
    src = torch.ones(2, 1, device=device, requires_grad=True)
    index = torch.zeros(2, 1, dtype=torch.int64, device=device)
    grad = torch.full((2, 1), float("nan"), device=device)
    scatter(x, 0, index, src).backward(grad)
    assert x.grad[0] == src.grad[0] == 0
    assert x.grad[1].isnan()
    assert src.grad[1].isnan()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e5m2], ids=str)
def test_what_has_no_gradient_says_so(dtype, device):
    x = torch.zeros(2, 2, device=device).to(dtype)
    index = some_index(2, 2, 2, device)
    trained = x.clone().requires_grad_()
    message = r"x, which takes part in a gradient, must be float16"
    with pytest.raises(TypeError, match=message):
        gather(trained, 0, index)
    with pytest.raises(TypeError, match="src, which takes part"):
        scatter(x, 0, index, trained)
    with torch.no_grad():
        assert gather(trained, 0, index).dtype == dtype


def test_torch_compile(device):
    def several(x, index, src):
        picked = gather(x, 1, index)
        put = scatter(picked, 0, index % 3, src)
        return total(scatter_add(put, 1, index % 4, src), -1)

    backend = here.sizes("inductor", "aot_eager")
    fused = torch.compile(several, fullgraph=True, backend=backend)
    # The second number of columns makes it compile again, for any.
    for columns in (4, 6):
        x = torch.randn(3, columns, device=device, requires_grad=True)
        src = torch.randn(3, columns, device=device, requires_grad=True)
        index = some_index(3, columns, columns, device)
        out, expected = fused(x, index, src), several(x, index, src)
        torch.testing.assert_close(out, expected)
        for ours, theirs in zip(
            torch.autograd.grad(out.sum(), (x, src)),
            torch.autograd.grad(expected.sum(), (x, src)),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_torch_compile_of_a_blur(device):
    image = torch.randint(0, 256, (9, 16), dtype=torch.uint8, device=device)
    backend = here.sizes("inductor", "aot_eager")
    fused = torch.compile(lambda x: blur(x) // 2, fullgraph=True, backend=backend)
    assert torch.equal(fused(image), blur(image) // 2)


def test_vmap(device):
    x = torch.randn(2, 3, 4, device=device)
    index = some_index(3, 4, 3, device)
    assert torch.equal(
        torch.vmap(lambda x: gather(x, 0, index))(x),
        torch.stack([gather(part, 0, index) for part in x]),
    )
    assert torch.equal(
        torch.vmap(lambda x: total(x, 0))(x), torch.stack([total(y, 0) for y in x])
    )
    images = (x * 40).to(torch.uint8)
    assert torch.equal(torch.vmap(blur)(images), torch.stack([blur(y) for y in images]))


def test_lazily_conjugated_and_negated_views(device):
    z = torch.randn(4, 6, dtype=torch.complex64, device=device)
    index = some_index(4, 6, 4, device)
    plain = z.conj().resolve_conj()
    assert torch.equal(gather(z.conj(), 0, index), torch.gather(plain, 0, index))
    assert torch.equal(
        scatter(z.conj(), 0, index, z.conj()), scatter(plain, 0, index, plain)
    )
    negated = z.conj().imag
    assert negated.is_neg()
    assert torch.equal(
        scatter_add(negated, 0, index, negated),
        scatter_add(-z.imag, 0, index, -z.imag),
    )
    assert torch.equal(gather(negated, 1, index), torch.gather(-z.imag, 1, index))


def test_fake_tensors(device):
    x = torch.randn(3, 4, device=device)
    index = some_index(2, 4, 3, device)
    with torch._subclasses.FakeTensorMode() as mode:
        fake, where = mode.from_tensor(x), mode.from_tensor(index)
        assert gather(fake, 0, where).shape == (2, 4)
        assert scatter(fake.t(), 1, where.t(), fake.t()).stride() == (3, 1)
        assert total(fake.half(), 0).dtype == torch.float16
        assert total(fake.bool(), 1).dtype == torch.int64


def test_total_of_rows_and_of_columns(device):
    x = torch.randn(2, 3, device=device, requires_grad=True)
    weights = torch.randn(3, device=device)
    (total(x, 0) * weights).sum().backward()
    assert torch.equal(x.grad, weights.expand(2, 3))


MISTAKES = [
    (indexed, "to_x = grad if ctx.add else", "to_x = grad if True else"),
    (indexed, "if ctx.ordered and not ctx.add:", "if False:"),
    (indexed, "last = scatter(places.new_full", "last = scatter_add(places.new_full"),
    (indexed, "(0, columns, 0, rows))", "(columns, 0, rows, 0))"),
    (indexed, "zeros = grad.new_zeros(ctx.shape)", "zeros = grad.new_ones(ctx.shape)"),
    (indexed, "to_src = gather(grad, ctx.dim,", "to_src = gather(grad, 0,"),
    (reduce, "grad.unsqueeze(ctx.dim)", "grad.unsqueeze(1 - ctx.dim)"),
]


@pytest.mark.parametrize(
    ("where", "old", "new"), MISTAKES, ids=lambda x: getattr(x, "__name__", x)
)
def test_planted_mistakes_are_found(where, old, new, device):
    def passes():
        test_total_of_rows_and_of_columns(device)
        test_an_index_outside_has_no_gradient(device)
        for dim in (0, 1):
            test_only_what_stays_has_a_gradient(dim, device)

    with (
        testing.mutated_module(where, old, new),
        pytest.raises((AssertionError, RuntimeError, ValueError)),
    ):
        passes()
