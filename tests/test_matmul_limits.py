"""Remembered answers: ours are taken back as they were, and impossible ones are not."""

import dataclasses
import itertools

import pytest
import torch

from tilebook import device
from tilebook.fp8 import evidence as eight_bits
from tilebook.fp8 import few, scaling
from tilebook.fp8 import ways as fp8
from tilebook.fp8.products import Product
from tilebook.hopper import ways as hopper
from tilebook.matmul import limits, operands, ways
from tilebook.matmul.evidence import task_for
from tilebook.matmul.shapes import Shape

SHAPES = (
    (512, 10240, 8192),
    *((8192, 8192, 8192), (512, 512, 512), (16, 4096, 4096), (1, 4096, 4096)),
    *((4096, 1, 4096), (2, 8192, 65536), (64, 8192, 28672), (4095, 4097, 1023)),
    *((1280, 1792, 4096), (8, 128, 131072), (1, 1, 1), (3, 5, 7), (300, 20, 9)),
)
FIRST = {
    "ordered": (128, 256, 64, 8, 3, 8),
    "persistent": (128, 128, 64, 4, 4, 8),
    "described": (128, 256, 64, 8, 4, 2, True, 8),
    "beside": (128, 256, 64, 64, 8, 4, 2, 8),
    "padded": (64, 32, 128, 4, 8, 1, False, 8),
    "split": (64, 128, 128, 16, 4, 3, False),
    "streamed": (128, 256, 64, 132, 8, 4, 8, False, True),
    "vectors": (16, 256, 8, 4, 1),
    "pipelined": (128, 256, 64, 3, 1, 8),
    "cooperative": (128, 256, 64, 3, 1, 8),
    "folded": (128, 256, 64, 4, 2, 16),
    "pingpong": (64, 256, 64, 4, 1, 8),
    "widths": (256, 128, 64, 64, 3, 8),
}
FP8 = {
    "tiled": (128, 256, 8, 3, 8),
    "described": (128, 256, 8, 4, 2, 8),
    "few": (64, 256, 4, 4),
    "cooperative": (128, 256, 4, 2, 8),
    "promoted": (128, 128, 6, 1, 16),
    "paired": (128, 128, 6, 1, 16),
    "carried": (128, 128, 6, 1, 16),
    "folded": (128, 256, 4, 2, 16),
}
GOOD = [
    *(("matmul", name, config) for name, config in FIRST.items()),
    *(("hopper", name, config) for name, config in FIRST.items()),
    *(("fp8", name, config) for name, config in FP8.items()),
]
GOOD = [each for each in GOOD if each[1] in ways.FIELDS[each[0]].kernels]
each_kernel = pytest.mark.parametrize(("field", "kernel", "config"), GOOD)

# What no kernel takes for a field of that name; a flag's are those of every other.
WRONG = {
    "block_m": (0, -16, 1, 8, 48, 512, 2**30),
    "block_n": (0, -16, 1, 48, 512, 2**30),
    "more": (0, 8, 48, 256, 2**30),
    "block_k": (0, 1, 48, 4096, 2**30),
    "num_warps": (0, 3, 6, 32, 64, 2**20),
    "num_stages": (0, -1, 17, 10**6),
    "pieces": (0, 3, 8, 256),
    "group": (0, -8, 65, 2**30),
    "parts": (0, -1, 10**6, 2**40),
    "programs": (0, -1, 10**6, 2**40),
    "atomic": (True,),
}
FOREIGN = (None, "4", 4.0, 16.0, [16], {}, float("nan"))


@pytest.fixture
def card(monkeypatch):
    here = dataclasses.replace(
        device.current(),
        slug="h100-sxm",
        sms=132,
        shared_memory_per_block=227 * 1024,
        shared_memory_per_sm=228 * 1024,
    )
    monkeypatch.setattr(device, "current", lambda: here)
    monkeypatch.setattr(device, "has", lambda feature: True)


def again(field, way):
    """What is read of a way that was written."""
    return ways.read([way.kernel, list(way.config)], field)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("field", ["matmul", "hopper"])
@pytest.mark.parametrize("dtype", operands.DTYPES)
def test_whatever_may_be_raced_is_read_back(field, dtype):
    seen = set()
    tasks = itertools.product(SHAPES, ("NN", "NT", "TN"), ("", "gelu"))
    for shape, layout, activation in tasks:
        precisions = operands.PRECISIONS if dtype == torch.float32 else ("ieee",)
        for precision in precisions:
            task = task_for(Shape(*shape), layout, dtype, precision)
            task = task._replace(activation=activation)
            for _, way in ways.FIELDS[field].fitting(task):
                assert again(field, way) == way
                seen.add(way.kernel)
    kernels = set(ways.FIELDS[field].kernels)
    own = set() if dtype in (torch.bfloat16, torch.float16) else {*hopper.TILED}
    own |= {"beside", "remainder", "widths"} if own else set()
    assert seen == kernels - own


@pytest.mark.usefixtures("card")
def test_whatever_may_be_raced_in_eight_bits_is_read_back():
    seen = set()
    for m, mode, fast in itertools.product(
        (1, 16, 128, 8192), ("tensor", "row", "1x128"), (True, False)
    ):
        for n, k in ((4096, 4096), (4096, 4088), (28672, 8192), (16, 16)):
            product = eight_bits.product_for(m, n, k, mode, fast=fast)
            for _, way in fp8.fitting_ways(product):
                assert again("fp8", way) == way
                seen.add(way.kernel)
    assert seen == set(fp8.KERNELS)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("field", sorted(ways.FIELDS))
def test_every_configuration_to_try_is_read_back(field):
    entered, count = ways.FIELDS[field], 0
    for name, rung in entered.kernels.items():
        found = getattr(rung, "CONFIGS", ())
        count += len(found)
        for config in found:
            way = ways.Way(name, tuple(config))
            assert again(field, way) == way
    assert count > 20


@pytest.mark.usefixtures("card")
@each_kernel
def test_one_wrong_value_makes_it_no_answer(field, kernel, config):
    assert ways.read([kernel, list(config)], field) == ways.Way(kernel, config)
    names = ways.FIELDS[field].configs[kernel]._fields
    for i, name in enumerate(names):
        flag = isinstance(config[i], bool)
        wrong = (0, 1, 2, *FOREIGN) if flag else (True, *FOREIGN)
        values = [*WRONG.get(name, ()), *wrong]
        for value in values:
            answer = [kernel, [*config[:i], value, *config[i + 1 :]]]
            assert ways.read(answer, field) is None, (name, value)


@pytest.mark.parametrize(
    ("field", "kernel", "config"),
    [
        # Columns of a second part that are more than those of the first.
        ("matmul", "beside", (64, 32, 64, 64, 4, 4, 1, 8)),
        ("hopper", "widths", (128, 32, 64, 64, 4, 8)),
        # Pieces of fewer columns than the copy engine stores.
        ("matmul", "described", (64, 32, 64, 4, 4, 4, True, 8)),
        # More sums, and more stages, than there is room for.
        ("matmul", "ordered", (256, 256, 32, 4, 2, 8)),
        ("matmul", "ordered", (128, 128, 256, 8, 16, 8)),
        ("hopper", "folded", (128, 256, 128, 16, 2, 8)),
        ("fp8", "folded", (128, 256, 16, 2, 8)),
        # Half of a group's rows, and a ring of one place.
        ("hopper", "cooperative", (64, 256, 64, 3, 1, 8)),
        ("hopper", "pingpong", (64, 256, 64, 1, 1, 8)),
        ("fp8", "promoted", (64, 128, 6, 1, 8)),
        # A tile that the copy engine would bring, and terms that nobody sums at once.
        ("matmul", "described", (16, 64, 64, 4, 4, 1, True, 8)),
        ("fp8", "few", (64, 64, 4, 4)),
    ],
)
def test_values_that_do_not_go_together_are_no_answer(field, kernel, config):
    assert ways.read([kernel, list(config)], field) is None


def test_powers_include_both_ends():
    assert limits.powers(1, 4) == (1, 2, 4)
    assert limits.powers(64, 64) == (64,)


def test_long_blocks_of_terms_are_refused_where_each_is_scaled():
    a, b = torch.randn(16, 256), torch.randn(64, 256)
    x, y = (scaling.reference(each, "1x128") for each in (a, b))
    tensors = (x.codes, y.codes.t(), x.scale, y.scale.t(), torch.empty(16, 64))
    product = Product(*(each.to(device.torch_device()) for each in tensors))
    with pytest.raises(ValueError, match="at most 128 terms at a time, got 256"):
        few.launch(product, few.Config(64, 256, 1, 4))
