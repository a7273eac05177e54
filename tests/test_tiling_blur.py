"""A blurred picture, to the last level, and in words of four pixels."""

import itertools
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.parallel.greyscale import greyscale, photograph
from tilebook.tiling import blur as module
from tilebook.tiling import stencil
from tilebook.tiling.blur import BORDERS, WEIGHTS, blur, direct, packed, rows

WAYS = (direct, rows, packed)
CASES = tuple(itertools.product(WEIGHTS, BORDERS))
each_case = pytest.mark.parametrize(("size", "border"), CASES)


def exact(image, size, border):
    """conv2d in float64, where every sum is exact, rounded to the nearest."""
    weights = torch.tensor(WEIGHTS[size], dtype=torch.float64, device=image.device)
    kernel = torch.outer(weights, weights)
    radius = size // 2
    wide = F.pad(image.double()[None, None], (radius,) * 4, mode=BORDERS[border])
    sums = F.conv2d(wide, kernel[None, None])[0, 0]
    return torch.floor(sums / kernel.sum() + 0.5).to(torch.uint8)


def picture(shape, device):
    return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


@pytest.fixture
def small_tiles(monkeypatch):
    """Where an operation takes a millisecond, tiles that end within small pictures."""
    if here.interpreting():
        monkeypatch.setattr(module, "DIRECT", {"BLOCK_H": 2, "BLOCK_W": 16})
        monkeypatch.setattr(module, "ROWS", {"ROWS": 2, "BLOCK_W": 16})
        monkeypatch.setattr(module, "PACKED", {"ROWS": 2, "BLOCK": 8})
        monkeypatch.setattr(module, "SMALLER", {})


small = pytest.mark.usefixtures("small_tiles")


def sizes_of(way, border):
    """Pictures that end raggedly beside and below a program's tile, and the least."""
    tile = {direct: module.DIRECT, rows: module.ROWS, packed: module.PACKED}[way]
    height, width, *_ = tile.values()
    beside = 4 * width + 4 if way is packed else width + 3
    found = [(height + 1, beside)]
    if border != "reflect":
        found += [(1, 8) if way is packed else (1, 1)]
    return found


@small
@pytest.mark.sanitize
@pytest.mark.parametrize("way", WAYS)
@each_case
def test_any_size(way, size, border, device):
    for shape in sizes_of(way, border):
        image = testing.guard(picture(shape, device))
        with testing.guarded():
            out = way(image.tensor, size=size, border=border)
        image.check()
        assert torch.equal(out, exact(image.tensor, size, border)), shape


@pytest.mark.parametrize("way", [*WAYS, blur])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(way, shape, device):
    assert way(picture(shape, device)).shape == shape


@small
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", WEIGHTS)
def test_white_stays_white_and_black_black(way, size, device):
    """The largest sum there is fits; only zeros beyond the edge darken it."""
    white = torch.full((5, 8), 255, dtype=torch.uint8, device=device)
    assert bool((way(white[:3], size=size, border="replicate") == 255).all())
    out = way(white, size=size, border="zero")
    assert bool((out[2:-2, 2:-2] == 255).all())
    assert torch.equal(out, exact(white, size, "zero"))
    assert not way(torch.zeros_like(white[:3]), size=size, border="reflect").any()


@small
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", WEIGHTS)
def test_one_bright_pixel_shows_the_weights(way, size, device):
    image = torch.zeros((5, 12), dtype=torch.uint8, device=device)
    image[2, 5] = 255
    weights = torch.tensor(WEIGHTS[size], device=device)
    total = int(weights.sum()) ** 2
    spot = (torch.outer(weights, weights) * 255 + total // 2) // total
    radius = size // 2
    out = way(image, size=size, border="zero").long()
    assert torch.equal(
        out[2 - radius : 3 + radius, 5 - radius : 6 + radius], spot.long()
    )
    assert int(out.sum()) == int(spot.sum())


@small
@pytest.mark.parametrize("name", ["offset", "strided", "sliced", "transposed"])
def test_any_strides(name, device):
    image = picture((3, 12), device)
    laid = dict(testing.layouts(image))[name]
    for way in (direct, rows, blur):
        with testing.guarded():
            out = way(laid)
        assert torch.equal(out, exact(image, 3, "reflect"))


@small
def test_stride_zero_and_rows_of_a_wider_picture(device):
    row = picture((1, 12), device).expand(3, 12)
    column = picture((3, 1), device).expand(3, 12)
    part = picture((3, 40), device)[:, 8:20]
    for image in (row, column, part):
        with testing.guarded():
            assert torch.equal(blur(image, size=5), exact(image, 5, "reflect"))
    with testing.guarded():
        assert torch.equal(packed(part), exact(part, 3, "reflect"))
        assert torch.equal(packed(row), exact(row, 3, "reflect"))


@small
def test_a_photograph(device):
    grey = greyscale(torch.from_numpy(photograph()).to(device)[:7, :64])
    assert torch.equal(blur(grey, size=5), exact(grey, 5, "reflect"))


@small
def test_repeats_are_equal(device):
    image = picture((3, 64), device)
    testing.deterministic(lambda: blur(image), 20 if image.is_cuda else 3)


class TestRefused:
    @pytest.mark.parametrize("way", [*WAYS, blur])
    @pytest.mark.parametrize(
        ("image", "error", "message"),
        [
            (None, TypeError, "image must be a torch.Tensor, got None"),
            (torch.zeros(4, 4), TypeError, "image must be uint8"),
            (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, "must have shape"),
            (torch.zeros(4, 4, dtype=torch.uint8, device="meta"), ValueError, "meta"),
        ],
    )
    def test_unfit(self, way, image, error, message, device):
        if isinstance(image, torch.Tensor) and not image.is_meta:
            image = image.to(device)
        with pytest.raises(error, match=message):
            way(image)

    @pytest.mark.parametrize("way", [*WAYS, blur])
    def test_options(self, way, device):
        image = picture((8, 8), device)
        with pytest.raises(ValueError, match="size must be 3 or 5, got 7"):
            way(image, size=7)
        with pytest.raises(ValueError, match=r"border must be .*'mirror'"):
            way(image, border="mirror")
        with pytest.raises(ValueError, match="at least 3 rows and columns"):
            way(image[:2], size=5)
        with pytest.raises(ValueError, match="at least 2 rows and columns"):
            way(image[:, :1], size=3)

    @pytest.mark.parametrize(
        "make", [lambda x: x[:, :7], lambda x: x.t(), lambda x: x[:, 1:5]]
    )
    def test_what_words_do_not_fit(self, make, device):
        with pytest.raises(ValueError, match="in multiples of 4; got shape"):
            packed(make(picture((8, 12), device)))


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("size", WEIGHTS)
@pytest.mark.parametrize("way", [direct, rows, blur], ids=lambda way: way.__name__)
def test_widths_that_are_compiled_otherwise(way, size, border, device):
    """A width that 16 divides, one that 4 divides, an odd one: each its own code, where
    there is code."""
    for width in here.sizes((4096, 1000, 1023), (45,)):
        image = picture((here.sizes(300, 7), width), device)
        image[2:4] = 255
        assert torch.equal(
            way(image, size=size, border=border), exact(image, size, border)
        )


MISTAKES = [
    (direct, "mirrored", "last - (i - last), i)", "last - (i - last) + 1, i)", 3),
    (direct, "mirrored", "tl.where(i < 0, -i, i)", "tl.where(i < 0, -1 - i, i)", 3),
    (direct, "mirrored", "tl.maximum(i, 0), n - 1", "tl.maximum(i, 1), n - 1", 5),
    (direct, "direct_kernel", "WEIGHTS[i] * WEIGHTS[j] *", "WEIGHTS[i] *", 3),
    (direct, "direct_kernel", "(acc + half) >>", "acc >>", 3),
    (direct, "direct_kernel", "inside = mask & (y >= 0)", "inside = mask", 3),
    (
        rows,
        "across",
        "acc += WEIGHTS[j] * pixel.to(tl.int32)",
        "acc += WEIGHTS[j] * pixel",
        3,
    ),
    (rows, "rows_kernel", "            a, b = b, e\n", "            a, b = a, e\n", 3),
    (rows, "rows_kernel", "6 * c + 4 * d", "6 * c + 4 * c", 5),
    (rows, "rows_kernel", "e + half) >> 8", "e) >> 8", 5),
    (
        rows,
        "rows_kernel",
        "first + ROWS, h)):\n        e =",
        "first + ROWS, h + 1)):\n        e =",
        3,
    ),
    (packed, "beyond", "return near << 24 | far << 16", "return near << 24 | far", 5),
    (packed, "beyond", "return near | far << 8", "return far | near << 8", 5),
    (packed, "across_words", "word << 8 | before >> 24", "word << 8 | before >> 16", 3),
    (packed, "across_words", "word >> 16 | after << 16", "word >> 16", 5),
    (packed, "across_words", "mask=inside & (offs > 0)", "mask=inside", 3),
    (packed, "down", "+ 2 * b + e + 0x00080008", "+ 2 * b + e + 0x00080000", 3),
    (packed, "_packed", "image.stride(0) // 4", "words", 3),
]


def planted(name, old, new):
    """A mistake in a launch, in a kernel, or in a helper that kernels inline."""
    where = module if name.startswith("_") else stencil
    if not here.interpreting():
        # Kernels that inline a helper have to be compiled again.
        return testing.mutated_module(where, old, new)
    ((_, mutant),) = testing.mutants(getattr(where, name), {"planted": (old, new)})
    return mock.patch.object(where, name, mutant)


@small
@pytest.mark.parametrize(("way", "name", "old", "new", "size"), MISTAKES)
def test_planted_mistakes_are_found(way, name, old, new, size, device):
    image = picture((3, 16), device)
    image[0, 0] = image[-1, -1] = 255
    # Bright all round the part: what leaks in from there is seen.
    part = torch.full((5, 24), 255, dtype=torch.uint8, device=device)[1:4, 4:20]
    part.copy_(image)

    def passes():
        for border in BORDERS:
            with testing.guarded():
                out = way(part, size=size, border=border)
            if not torch.equal(out, exact(image, size, border)):
                return False
        return True

    try:
        with planted(name, old, new):
            assert not passes()
    except (IndexError, testing.GuardError):
        pass  # The word of the interpreter, or the guards', for what strays outside.


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_compiles_everywhere(target):
    image = torch.empty((4096, 4096), dtype=torch.uint8, device="meta")
    size = 5 if target == "sm_90" else 3
    radius = size // 2
    taps = {"RADIUS": radius, "BORDER": "reflect", "target": target}
    strided = (image, image, 4096, 4096, 4096, 1, module.half(size))
    near = compile_only.compile(
        stencil.direct_kernel, *strided, **taps, WEIGHTS=WEIGHTS[size], **module.DIRECT
    ).evidence
    slid = compile_only.compile(
        stencil.rows_kernel, *strided, **taps, WEIGHTS=WEIGHTS[size], **module.ROWS
    ).evidence
    words = compile_only.compile(
        stencil.packed_kernel,
        *(image, image, 4096, 1024, 1024),
        **taps,
        **module.PACKED,
    ).evidence
    for evidence in (near, slid, words):
        assert evidence.spill_store_bytes == 0
    # What is kept between rows stays in registers.
    assert not words.shared_bytes
    per_thread = module.DIRECT["BLOCK_H"] * module.DIRECT["BLOCK_W"] // 128
    if target != "gfx942":
        # Every neighbour of every pixel, one byte each.
        assert near.global_loads == {8: size * size * per_thread}
        assert set(words.global_stores) == {128}
        assert words.global_loads[128] == size


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_to_the_31_pixels(device):
    image = torch.empty((2**16 + 3, 2**15 + 4), dtype=torch.uint8, device=device)
    image.random_(0, 256)
    out = blur(image)
    for part in (slice(0, 40), slice(2**15, 2**15 + 40), slice(-40, None)):
        end = part.stop is None
        rows_of = image[part]
        expected = exact(rows_of, 3, "reflect")
        inner = slice(0 if part.start == 0 else 1, None if end else -1)
        assert torch.equal(out[part][inner], expected[inner])
