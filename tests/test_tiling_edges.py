"""What a careless kernel gets wrong: views still to be read, sizes at the limits."""

import contextlib

import pytest
import torch
from triton.runtime.interpreter import interpreter_builder

from tilebook import device as here
from tilebook import testing, tiling
from tilebook.tiling import (
    aligned,
    blur,
    by_hand,
    described,
    descriptors,
    grouped,
    indexed,
    naive,
    operands,
    scattering,
    stencil,
    tiled,
    transpose,
)

RUNGS = (naive, tiled, grouped, aligned)


def rung_name(rung):
    return rung.__name__.rpartition(".")[2]


@contextlib.contextmanager
def only(program):
    """Let a launch of one program be that of this number."""
    if not here.interpreting():
        pytest.skip("compiled kernels run whole grids")

    def place(x, y, z):
        interpreter_builder.grid_idx = (program + x, y, z)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter_builder, "set_grid_idx", place)
        yield


@pytest.mark.parametrize("rung", [*RUNGS, tiling], ids=rung_name)
def test_views_that_are_still_to_be_conjugated_or_negated(rung, device):
    z = torch.randn(6, 8, dtype=torch.complex64, device=device)
    assert torch.equal(rung.transpose(z.conj()), z.conj().resolve_conj().t())
    negated = z.conj().imag
    assert negated.is_neg()
    assert torch.equal(rung.transpose(negated), -z.imag.t())


def test_the_same_through_descriptors(device):
    z = torch.randn(16, 16, dtype=torch.complex64, device=device)
    assert torch.equal(described.transpose(z.conj()), z.conj().resolve_conj().t())
    negated = torch._neg_view(torch.ones(8, 16, device=device))
    assert torch.equal(descriptors.copy(negated), -torch.ones(8, 16, device=device))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", ["transpose", "rung", "gather", "scatter"])
def test_quantised_tensors_are_refused(call, device):
    x = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8).to(device)
    index = torch.zeros(2, 2, dtype=torch.int64, device=device)
    calls = {
        "transpose": lambda: transpose(x),
        "rung": lambda: naive.transpose(x),
        "gather": lambda: indexed.gather(x, 0, index),
        "scatter": lambda: indexed.scatter(x, 0, index, x),
    }
    with pytest.raises(TypeError, match="x must not be quantised"):
        calls[call]()


@pytest.mark.parametrize("rung", tiling.LADDER, ids=rung_name)
def test_a_rung_does_not_lose_a_gradient(rung, device):
    x = torch.ones(16, 16, device=device, requires_grad=True)
    with pytest.raises(ValueError, match="x takes part in a gradient"):
        rung.transpose(x)
    with torch.no_grad(), contextlib.suppress(here.HardwareError):
        assert torch.equal(rung.transpose(x), x)


def test_nor_do_a_product_and_a_copy(device):
    x = torch.ones(16, 16, device=device)
    trained = x.clone().requires_grad_()
    with pytest.raises(ValueError, match="b takes part in a gradient"):
        by_hand.matmul(x, trained)
    with pytest.raises(ValueError, match="x takes part in a gradient"):
        descriptors.copy(trained)


@pytest.mark.parametrize("group", [2**30, 2**40])
def test_strips_higher_than_any_matrix(group, device):
    x = torch.randint(0, 99, (130, 300), device=device)
    with testing.guarded():
        assert torch.equal(grouped.transpose(x, group=group), x.t())
    a, b = torch.ones(9, 8, device=device), torch.ones(8, 17, device=device)
    assert bool((by_hand.matmul(a, b, group=group) == 8).all())
    assert by_hand.reads(2, group, programs=4).blocks == 8


def test_batches_of_rows_and_of_columns_are_one_matrix(device, monkeypatch):
    grids, kernel = [], aligned.transpose_kernel

    class Spy:
        def __getitem__(self, grid):
            grids.append(grid)
            return kernel[grid]

    monkeypatch.setattr(aligned, "transpose_kernel", Spy())
    for shape in ((300, 1, 5), (300, 5, 1), (4, 75, 1, 1), (2, 1, 9)):
        x = torch.randint(0, 99, shape, device=device)
        out = torch.empty_like(x.transpose(-2, -1).contiguous())
        with testing.guarded():
            out = transpose(x)
        assert torch.equal(out, x.transpose(-2, -1))
        assert torch.equal(transpose(x[1:, ..., :1]), x[1:, ..., :1].transpose(-2, -1))
    # 300 matrices, and no program for each.
    assert max(grid[0] for grid in grids) <= 8


def test_more_tiles_than_a_grid_has_programs():
    x = torch.empty(1, dtype=torch.uint8, device="meta")
    with pytest.raises(ValueError, match="x has 2147483648 tiles, and a grid at most"):
        aligned.launch(None, x.expand(2**31, 2, 2), x.expand(2**31, 2, 2))
    assert operands.check_grid(2**31 - 1, "tiles") == 2**31 - 1
    with pytest.raises(ValueError, match=r"image has \d+ tiles"):
        blur._direct(x.expand(2**33, 1), None, 3, "zero")
    for launch in (blur._rows, blur._packed):
        with pytest.raises(ValueError, match=r"image has \d+ tiles"):
            launch(x.expand(2**35, 4), None, 3, "zero")


def test_sides_too_long_for_a_product(device):
    with pytest.raises(ValueError, match="a must have sides of at most 1073741824"):
        by_hand.matmul(
            torch.empty(2**30 + 1, 0, device=device), torch.empty(0, 1, device=device)
        )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"block": 3}, ValueError, "block must be 1, 2, 4 or 8, got 3"),
        ({"block": 16}, ValueError, "block must be"),
        ({"group": 0}, ValueError, "group must be at least 1"),
        ({"programs": 0}, ValueError, "programs must be at least 1"),
        ({"programs": 10}, ValueError, "programs must be at most 9, got 10"),
        ({"tiles": 2.0}, TypeError, "tiles must be an int"),
    ],
)
def test_reads_unfit(given, error, message):
    with pytest.raises(error, match=message):
        by_hand.reads(**({"tiles": 3} | given))


# Memory that nobody touches is not there: the pictures below take a few pages.
LAST = 2**31 - 1


@pytest.mark.skipif(not here.interpreting(), reason="of a grid, one program runs")
@pytest.mark.parametrize("size", [3, 5])
def test_the_last_pixels_of_a_row_as_long_as_32_bits_count(size):
    image = torch.empty((1, LAST), dtype=torch.uint8)
    image[:, -600:] = torch.randint(0, 256, (600,), dtype=torch.uint8)
    out = torch.empty_like(image)
    expected = blur.direct(image[:, -600:].clone(), size=size, border="zero")
    taps = {"RADIUS": size // 2, "WEIGHTS": blur.WEIGHTS[size], "BORDER": "zero"}
    for kernel, tile in (
        (stencil.direct_kernel, blur.DIRECT),
        (stencil.rows_kernel, blur.ROWS),
    ):
        out[:, -100:] = 0
        with only((LAST - 1) // tile["BLOCK_W"]):
            kernel[(1,)](image, out, 1, LAST, LAST, 1, blur.half(size), **taps, **tile)
        assert torch.equal(out[:, -100:], expected[:, -100:])


def test_words_beyond_2_to_the_31_pixels():
    image = torch.empty((1, 2**31), dtype=torch.uint8)
    image[:, -2048:] = torch.randint(0, 256, (2048,), dtype=torch.uint8)
    # The left edge is that of a program that doesn't run, and is loaded all the same.
    image[:, :4] = 0
    out = torch.empty_like(image)
    words = 2**29
    with only((words - 1) // blur.PACKED["BLOCK"]):
        stencil.packed_kernel[(1,)](
            image, out, 1, words, words, RADIUS=2, BORDER="replicate", **blur.PACKED
        )
    expected = blur.direct(image[:, -2048:].clone(), size=5, border="replicate")
    assert torch.equal(out[:, -900:], expected[:, -900:])


def test_reflecting_beyond_2_to_the_30_pixels():
    width = 2**30 + 9
    row = torch.empty((1, width), dtype=torch.uint8)
    row[:, -600:] = torch.randint(0, 256, (600,), dtype=torch.uint8)
    out = torch.empty((3, width), dtype=torch.uint8)
    tiles = -(-width // blur.DIRECT["BLOCK_W"])
    with only(tiles - 1):
        stencil.direct_kernel[(1,)](
            row, out, 3, width, 0, 1, blur.half(3),
            RADIUS=1, WEIGHTS=blur.WEIGHTS[3], BORDER="reflect", **blur.DIRECT,
        )  # fmt: skip
    expected = blur.direct(row[:, -600:].expand(3, 600).clone())
    assert torch.equal(out[:, -9:], expected[:, -9:])


def test_the_last_of_as_many_columns_as_32_bits_count():
    x = torch.tensor([[7], [8]], dtype=torch.uint8)
    index = torch.ones((1, 1), dtype=torch.int32)
    out = torch.empty((1, LAST), dtype=torch.uint8)
    tile = {"BLOCK_M": 4, "BLOCK_N": 256}
    sizes = (2, 1, LAST)
    out[:, -255:] = 0
    with only((LAST - 1) // 256):
        indexed.gather_kernel[(1,)](
            x, index, out, *sizes, 1, 0, 1, 0, LAST, 1, **tile
        )  # fmt: skip
    assert bool((out[:, -255:] == 8).all())
    zero = index - 1
    with only((LAST - 1) // 256):
        scattering.unordered_kernel[(1,)](
            out, zero, x, *sizes, LAST, 1, 0, 0, 0, 0, ADD=False, **tile
        )
    assert bool((out[:, -255:] == 7).all())


@pytest.mark.parametrize("dim", [1, 2, 0])
def test_vmap_takes_one_launch(dim, device):
    x = torch.randn(3, 4, 5, device=device)
    expected = x.movedim(dim, 0).transpose(1, 2)
    assert torch.equal(torch.vmap(transpose, in_dims=dim)(x), expected)
    twice = torch.vmap(torch.vmap(transpose))(x[None])
    assert torch.equal(twice, x[None].transpose(-2, -1))
    spied = []
    with pytest.MonkeyPatch.context() as patch:
        launch = aligned.launch
        patch.setattr(
            aligned, "launch", lambda *args: spied.append(args) or launch(*args)
        )
        torch.vmap(transpose, in_dims=dim)(x)
    assert len(spied) == 1
