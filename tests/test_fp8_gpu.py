"""Eight bits on a card: repeats, graphs, and tensors beyond 2^31 elements."""

import pytest
import torch

from tilebook import device as here
from tilebook import testing
from tilebook.fp8 import (
    accumulation,
    described,
    errors,
    products,
    public,
    quantizing,
    scaling,
    shapes,
)
from tilebook.fp8.products import Product
from tilebook.matmul import searching
from tilebook.matmul.shapes import Shape

pytestmark = pytest.mark.gpu
each_granularity = pytest.mark.parametrize("granularity", scaling.GRANULARITIES)


@pytest.fixture
def card(device):
    if not here.has("fp8"):
        pytest.skip("needs 8-bit matrix instructions")
    return device


@each_granularity
def test_quantisers_repeat_to_the_bit(granularity, card):
    x = torch.randn(1000, 5000, device=card).bfloat16()
    call = testing.deterministic(lambda: quantizing.quantize(x, granularity))
    expected = scaling.reference(x, granularity)
    for found, wanted in zip(call, expected, strict=True):
        assert torch.equal(
            found.flatten().view(torch.uint8), wanted.flatten().view(torch.uint8)
        )


@pytest.mark.large
@pytest.mark.parametrize("granularity", ["tensor", "row", "1x128", "128x128"])
def test_beyond_32_bits(granularity, card):
    m, k = 2**16 + 128, 2**15
    x = torch.zeros(m, k, dtype=torch.bfloat16, device=card)
    x[-1, -1], x[0, 0] = 3.0, 1.0
    found = quantizing.quantize(x, granularity)
    assert found.codes[-1, -1].float() == 448
    assert not found.codes[1:-1, ::4096].float().any()


@pytest.mark.parametrize("name", shapes.SCALINGS)
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 4096, 4096), (100, 512, 8192), (700, 1032, 2064)]
)
def test_products(name, fast, shape, card):
    operands = shapes.operands(Shape(*shape), name)

    def call():
        return public.scaled_matmul(*operands, fast_accumulation=fast)

    out = testing.deterministic(call)
    products.assert_right(Product(*operands, out, fast=fast), bits=12)


def test_in_a_graph(card):
    operands = shapes.operands(Shape(64, 512, 1024), "row")
    with searching.off():
        expected = public.scaled_matmul(*operands)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = public.scaled_matmul(*operands)
    out.zero_()
    graph.replay()
    assert torch.equal(out, expected)


@pytest.mark.parametrize("fast", [False, True])
def test_what_is_kept_is_what_the_model_says(fast, card):
    """Of Hopper; whoever sees this fail has found something out."""
    if not here.has("wgmma"):
        pytest.skip("the model is of Hopper's tensor cores")
    a, b = accumulation.operands(
        "signed", 1024, torch.Generator(device=card).manual_seed(1)
    )
    one = torch.ones(1, 1, device=card)
    out = torch.empty(a.shape[0], b.shape[1], device=card)
    # What takes fewer rows at a time multiplies in sixteen bits.
    described.launch(
        Product(a, b, one, one, out, fast=fast), described.Config(64, 64, 4, 4)
    )
    exact = a.double() @ b.double()
    block = None if fast else products.BLOCK
    modelled = accumulation.modelled(a, b, 13, block)
    off, expected = errors.relative(out, exact), errors.relative(modelled, exact)
    assert 0.99 * expected < off < 1.01 * expected
    assert (out == modelled).double().mean() > 0.999
