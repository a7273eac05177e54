"""What the tuner tries of the kernels in eight bits fits, and is compared with what
ships and with the library."""

import pytest

from tilebook import device, measure
from tilebook.fp8 import evidence, shapes, tuning, tuning_quantizers, ways
from tilebook.fp8.products import Product
from tilebook.matmul import ways as earlier
from tilebook.matmul.shapes import Shape

MANY, THIN = (4096, 4096, 4096), (16, 4096, 4096)


@pytest.fixture
def card(monkeypatch):
    there = device.Device("cuda", "a GPU", "gpu", "cuda", capability=(9, 0), sms=132)
    monkeypatch.setattr(device, "current", lambda: there)


def fits(product, found):
    assert len(set(found)) == len(found)
    for way in found:
        assert earlier.read([way.kernel, list(way.config)], "fp8") == way
        kernel = ways.KERNELS[way.kernel]
        config = ways.CONFIGS[way.kernel](*way.config)
        assert kernel.room(product, config) == config
        if hasattr(kernel, "refusal"):
            assert kernel.refusal(product) is None


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("choose", "mode", "fast", "kernels"),
    [
        (tuning.every_way, "row", True, {"cooperative", "folded", "promoted"}),
        (tuning.every_way, "1x128", False, {"carried", "described"}),
        (tuning.more_tiles, "row", True, {*ways.KERNELS} - {"few", "carried"}),
        (tuning.more_tiles, "row", False, {"promoted", "described", "tiled"}),
        (tuning.more_tiles, "1x128", False, {"carried", "described", "tiled"}),
    ],
)
def test_kernels_for_many_rows_are_tried_in_ways_that_fit(choose, mode, fast, kernels):
    product = evidence.product_for(*MANY, mode, fast=fast)
    found = choose(product)
    fits(product, found)
    assert {way.kernel for way in found} >= kernels


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("mode", "fast"), [("row", True), ("1x128", False)])
def test_few_rows_are_tried_in_ways_that_fit(mode, fast):
    product = evidence.product_for(*THIN, mode, fast=fast)
    for choose in (tuning.every_way, tuning.more_parts):
        found = choose(product)
        fits(product, found)
        assert "few" in {way.kernel for way in found}
    more = {way for way in tuning.more_parts(product) if way.kernel == "few"}
    assert len(more) > len({w for w in tuning.every_way(product) if w.kernel == "few"})
    # A block of 256 terms is too long for sums that are taken 128 at a time.
    assert {way.config[1] for way in more} == ({128, 256} if fast else {128})


@pytest.mark.usefixtures("card")
def test_a_precise_tile_is_half_as_large():
    product = evidence.product_for(*MANY, "row", fast=False)
    for way in tuning.more_tiles(product):
        if way.kernel == "promoted":
            assert way.config[0] * way.config[1] <= 128 * 128


def test_all_that_the_chapter_measures_is_tried():
    for name in shapes.SCALINGS:
        tried = {shape for shape, scaling, _ in tuning.CASES if scaling == name}
        assert tried == {*shapes.LARGE, *shapes.DECODING}
    assert {fast for _, name, fast in tuning.CASES if name == "row"} == {True, False}
    assert {fast for _, name, fast in tuning.CASES if name == "block"} == {False}


@pytest.mark.parametrize("contest", tuning.CONTESTS)
def test_contests_compare_with_what_ships_and_with_the_library(contest, monkeypatch):
    compared = []

    class Bench:
        def compare(self, *, providers, make_inputs, reference, shape, **_):
            compared.append((providers, make_inputs(), reference, shape))

    launched = []
    tiny = ((Shape(16, 32, 256), "row", True), (Shape(16, 32, 256), "block", False))
    for name in ("CASES", "LARGE", "THIN"):
        monkeypatch.setattr(tuning, name, tiny)
    way = earlier.Way("folded", (128, 256, 4, 2, 8))
    for name in ("every_way", "more_tiles", "more_parts"):
        monkeypatch.setattr(tuning, name, lambda product: [way])
    monkeypatch.setattr(earlier, "launch", lambda *args: launched.append(args))
    monkeypatch.setattr(shapes, "working", lambda peers, found: dict(peers))
    tuning.CONTESTS[contest](Bench())
    first, second = compared
    providers, operands, reference, shape = first
    assert list(providers) == ["shipped", "_scaled_mm", "folded 128 256 4 2 8"]
    assert all(isinstance(each, measure.Provider) for each in providers.values())
    assert providers["shipped"].fn.keywords == {"fast_accumulation": True}
    assert second[0]["shipped"].fn.keywords == {"fast_accumulation": False}
    assert (shape["fast"], second[3]["fast"]) == (1, 0)
    assert shape["scaling"] != second[3]["scaling"]
    exact = reference(*(x.float() for x in operands))
    assert exact.shape == (16, 32)
    providers["folded 128 256 4 2 8"].fn(*operands)
    ((product, got, field),) = launched
    assert isinstance(product, Product)
    assert (product.fast, product.out.shape, field) == (True, (16, 32), "fp8")
    assert got == way


class Checked:
    """A bench that calls every way and compares it, and times nothing."""

    def __init__(self):
        self.seen = {}

    def compare(self, *, op, shape, providers, make_inputs, reference, **_):
        inputs = make_inputs()
        expected = reference(*(x.double() for x in inputs))
        for name, each in providers.items():
            for found, right in zip(each.fn(*inputs), expected, strict=True):
                off = (found.double() - right).norm() / right.norm()
                assert off < each.bound, (op, name, off)
        self.seen[op] = [*providers]


@pytest.mark.usefixtures("interpreted")
def test_ways_to_quantise_are_right(monkeypatch):
    monkeypatch.setattr(tuning_quantizers, "SIDES", ((128, 256),))
    monkeypatch.setattr(tuning_quantizers, "LONG", ((2, 512),))
    bench = Checked()
    for contest in tuning_quantizers.CONTESTS.values():
        contest(bench)
    assert {len(set(names)) for names in bench.seen.values()} == {5, 7, 10, 37}
    assert all(names[0] == "shipped" for names in bench.seen.values())
