"""Which ways enter the race, what is asked, and that an answer is used and kept."""

import dataclasses
import threading
import types

import pytest
import torch

from tilebook import device
from tilebook.matmul import (
    choose,
    described,
    descriptors,
    estimates,
    fitting,
    operands,
    padded,
    racing,
    remembered,
    searching,
    versions,
    ways,
)
from tilebook.measure.timing import Samples


def task(m, n, k, dtype=torch.bfloat16, layout="NT", place="meta", **more):
    a = torch.empty(m, k, dtype=dtype, device=place)
    b = torch.empty(n, k, dtype=dtype, device=place).t()
    if layout[0] == "T":
        a = torch.empty(k, m, dtype=dtype, device=place).t()
    if layout[1] == "N":
        b = torch.empty(k, n, dtype=dtype, device=place)
    out = torch.empty(m, n, dtype=operands.result_dtype(dtype), device=place)
    return operands.Task(a, b, out, **more)


@pytest.fixture
def hopper(monkeypatch):
    here = dataclasses.replace(
        device.current(),
        slug="h100-sxm",
        sms=132,
        shared_memory_per_block=227 * 1024,
        shared_memory_per_sm=228 * 1024,
    )
    monkeypatch.setattr(device, "current", lambda: here)
    monkeypatch.setattr(device, "has", lambda feature: True)


SHAPES = (
    *((8192, 8192, 8192), (512, 512, 512), (16, 4096, 4096), (1, 4096, 4096)),
    *((4096, 1, 4096), (64, 8192, 28672), (4095, 4097, 1023), (1000, 1000, 1000)),
    *((1, 1, 1), (3, 5, 7), (300, 20, 9)),
)


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("dtype", operands.DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_product_has_entrants_that_fit(shape, dtype):
    product = task(*shape, dtype=dtype)
    found = ways.entrants(product)
    assert 0 < len(found) <= ways.ENTRANTS
    assert len(set(found)) == len(found)
    for way in found:
        assert way.kernel in ways.KERNELS
        config = ways.CONFIGS[way.kernel](*way.config)
        assert tuple(config) == way.config
        if way.kernel in ("ordered", "persistent"):
            tile = estimates.Tile(*config[:5])
            assert estimates.shared_bytes(tile, dtype.itemsize) <= 227 * 1024
            rung = ways.KERNELS[way.kernel]
            rooms = [
                rung.room(product, x, fitting.width(product)) for x in rung.CONFIGS
            ]
            assert config in rooms


@pytest.mark.usefixtures("hopper")
def test_the_kernels_that_suit_a_shape_enter():
    def kernels(*shape, **more):
        return {way.kernel for way in ways.entrants(task(*shape, **more))}

    large = kernels(8192, 8192, 8192)
    assert {"described", "ordered"} <= large <= {"described", "ordered", "beside"}
    assert {"vectors", "split"} <= kernels(1, 4096, 4096)
    assert "beside" in kernels(128, 10240, 8192)
    assert "vectors" in kernels(4096, 1, 4096)
    assert "split" in kernels(16, 4096, 4096)
    assert "vectors" not in kernels(64, 4096, 4096)
    # 130 tiles of 128 by 128 on 132 multiprocessors come out even; 140 don't.
    assert "streamed" in kernels(1280, 1792, 4096)
    # Rows of an odd number of elements start anywhere.
    odd = kernels(4095, 4097, 1023)
    assert "padded" in odd
    assert "described" not in odd


def test_without_a_copy_engine_nobody_describes(hopper, monkeypatch):
    monkeypatch.setattr(device, "has", lambda feature: feature != "tma")
    for shape in ((8192, 8192, 8192), (4095, 4097, 1023)):
        found = {way.kernel for way in ways.entrants(task(*shape))}
        assert not found & {"described", "padded"}


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("sides", [(512, 512, 512), (511, 509, 513)])
def test_what_an_old_triton_may_get_wrong_is_not_entered(sides, monkeypatch):
    def engines(layout, precision, dtype=torch.float32):
        asked = task(*sides, layout=layout, precision=precision, dtype=dtype)
        named = {way.kernel for _, way in ways.fitting_ways(asked)}
        chosen = choose.choose(asked)
        return bool(named & {"described", "padded"}), chosen is described

    monkeypatch.setattr(versions, "suspect", lambda: True)
    assert engines("TN", "tf32x3") == (False, False)
    for layout, precision in (("NN", "tf32x3"), ("NT", "tf32x3"), ("TN", "tf32")):
        assert engines(layout, precision)[0]
    monkeypatch.setattr(versions, "suspect", lambda: False)
    assert engines("TN", "tf32x3")[0]


@pytest.mark.parametrize(
    ("version", "wrong", "waits"),
    [
        ("3.3.1", False, True),
        ("3.4.0", True, True),
        ("3.6.0", True, True),
        ("3.7.0", True, False),
        ("3.7.1", False, False),
        ("3.10.0", False, False),
    ],
)
def test_which_versions_are_old(version, wrong, waits):
    assert (versions.suspect(version), versions.serialises(version)) == (wrong, waits)


@pytest.mark.usefixtures("hopper")
def test_a_copy_has_aligned_rows_and_the_same_elements():
    for made in (
        torch.randn(5, 7),
        torch.randn(7, 5).t(),
        torch.randn(6, 9)[1:, 2:],
        torch.randn(5, 1).expand(5, 7),
    ):
        x = made.to(torch.bfloat16)
        assert padded.misplaced(x)
        copy = padded.aligned(x)
        assert torch.equal(copy, x)
        assert descriptors.unfit(copy) is None or descriptors.unfit(copy.t()) is None
    kept = torch.randn(8, 16).to(torch.bfloat16)
    assert padded.aligned(kept) is kept


@pytest.mark.parametrize("layout", ["NN", "NT"])
@pytest.mark.parametrize("shape", [(33, 17, 19), (1, 3, 5), (70, 66, 35)])
def test_padding_changes_no_product(shape, layout):
    m, n, k = shape
    made = task(m, n, k, layout=layout, place=device.torch_device())
    made.a.normal_()
    made.b.normal_()
    padded.launch(made)
    expected = made.a.double() @ made.b.double()
    allowed = 2.0**-8 * (made.a.double().abs() @ made.b.double().abs())
    assert ((made.out.double() - expected).abs() <= allowed).all()


def test_sizes_count_by_three_digits():
    assert [searching.rounded(n) for n in (0, 1, 7, 9, 1000, 1024, 1025, 4097)] == [
        *(0, 1, 7, 10, 1024, 1024, 1280, 5120)
    ]
    for n in range(1, 3000):
        found = searching.rounded(n)
        assert n <= found < 1.25 * n + 1
        assert searching.rounded(found) == found


def test_what_changes_the_answer_changes_the_question():
    where = torch.device("cpu")
    first = searching.question(task(512, 512, 512, place=where))
    assert searching.question(task(510, 512, 512, place=where)) == first
    bias = torch.zeros(512, dtype=torch.bfloat16)
    other = [
        task(520, 512, 512, place=where),
        task(512, 512, 512, layout="NN", place=where),
        task(512, 512, 512, dtype=torch.float16, place=where),
        task(512, 512, 512, place=where, scale=0.5),
        task(512, 512, 512, place=where, bias=bias),
        task(512, 512, 512, place=where, activation="relu"),
        task(512, 512, 512, place=where, residual=torch.zeros(512, 512)),
        task(512, 512, 512, place=where, precision="tf32"),
        # One element on, no row starts at a multiple of 16 bytes.
        task(512, 512, 512, place=where)._replace(
            a=torch.empty(512 * 512 + 1, dtype=torch.bfloat16)[1:].view(512, 512)
        ),
        # And here rows lie an odd number of elements apart.
        task(512, 512, 512, place=where)._replace(
            a=torch.empty(512, 513, dtype=torch.bfloat16)[:, :512]
        ),
    ]
    asked = [searching.question(each) for each in other]
    assert first not in asked
    assert len(set(asked)) == len(asked)
    exactly = [searching.exactly(each) for each in other]
    assert searching.exactly(task(512, 512, 512, place=where)) not in exactly
    assert len(set(exactly)) == len(exactly)


class Clock:
    """Times ways by name; `log` has those that were timed."""

    def __init__(self, times):
        self.times, self.log = times, []

    def cold(self, calls, seconds):
        (call,) = calls
        way = call.args[1]
        self.log.append(way)
        return Samples([self.times[way.kernel]])

    def synchronize(self):
        pass


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Two kernels that note what they are launched with, and a card's permission."""
    launched = []
    found = [ways.Way("ordered", (16, 16, 32, 4, 2, 8))]
    found += [ways.Way("split", (16, 16, 32, 2, 4, 5, False))]

    def launch(product, way, field):
        launched.append((product, way))

    monkeypatch.setenv(remembered.FOLDER, str(tmp_path))
    monkeypatch.setattr(ways, "entrants", lambda product, field: found)
    monkeypatch.setattr(ways, "launch", launch)
    monkeypatch.setattr(searching, "may_search", lambda product: True)
    clock = Clock({"ordered": 2.0, "split": 1.0})
    monkeypatch.setattr(searching, "here", lambda: clock)
    # Which code this is doesn't matter here: no file of it is read.
    monkeypatch.setattr(searching.digest, "of_modules", lambda names: {"ways": "0"})
    searching._memory.cache_clear()
    yield types.SimpleNamespace(launched=launched, clock=clock, ways=found)
    searching._memory.cache_clear()


def test_the_fastest_is_launched_and_remembered(stage):
    product = task(8, 8, 8, place="cpu")
    choose.product(product)
    assert stage.launched[-1] == (product, stage.ways[1])
    # Nothing but the launch itself wrote to the result.
    assert all(each.out is not product.out for each, _ in stage.launched[:-1])
    assert stage.clock.log
    stage.clock.log.clear()
    choose.product(product)
    assert stage.launched[-1] == (product, stage.ways[1])
    assert not stage.clock.log
    # Another process reads it from the disk.
    searching._memory.cache_clear()
    choose.product(product)
    assert stage.launched[-1] == (product, stage.ways[1])
    assert not stage.clock.log


def test_what_was_asked_before_needs_no_question(stage, monkeypatch):
    product = task(8, 8, 8, place="cpu")
    found = searching.way_for(product)
    monkeypatch.delattr(searching, "question")
    assert searching.way_for(product) is found
    with pytest.raises(NameError):
        searching.way_for(task(8, 8, 9, place="cpu"))


def test_what_a_race_without_all_its_ways_decides_is_for_this_process(
    stage, monkeypatch
):
    product = task(8, 8, 8, place="cpu")
    ended = racing.Outcome({stage.ways[0]: 1.0}, [stage.ways[1]])
    monkeypatch.setattr(racing, "race", lambda *args, **more: ended)
    assert searching.way_for(product) == stage.ways[0]
    assert searching.way_for(product) == stage.ways[0]
    fresh = remembered.Memory("matmul", searching.memory().circumstances)
    assert fresh.get(searching.question(product)) is None


def test_where_every_way_fails_the_rule_decides_from_then_on(stage, monkeypatch):
    product = task(8, 8, 8, place="cpu")
    races = []

    def race(*args, **more):
        races.append(args)
        return racing.Outcome({}, [])

    monkeypatch.setattr(racing, "race", race)
    assert searching.way_for(product) is None
    assert searching.way_for(product) is None
    assert len(races) == 1


def test_where_memory_is_short_the_rule_decides(stage, monkeypatch):
    def race(*args, **more):
        raise torch.cuda.OutOfMemoryError("no room for a second result")

    monkeypatch.setattr(racing, "race", race)
    assert searching.way_for(task(8, 8, 8, place="cpu")) is None


@pytest.mark.parametrize(
    "answer",
    [
        None,
        5,
        "x",
        [],
        ["ordered"],
        ["gone", [16, 16, 32, 4, 2, 8]],
        ["ordered", 7],
        ["ordered", []],
        ["ordered", [16] * 9],
        ["ordered", [48, 16, 32, 4, 2, 8]],
        ["ordered", [16, 16, 32, "4", 2, 8]],
        ["ordered", [16, 16, 32, 4, 2, -8]],
        ["split", [16, 16, 32, 0, 4, 5, False]],
        [["ordered"], [16, 16, 32, 4, 2, 8]],
    ],
    ids=str,
)
def test_an_answer_that_is_no_way_is_asked_for_again(stage, answer):
    assert ways.read(answer) is None
    product = task(8, 8, 8, place="cpu")
    searching.memory().put(searching.question(product), answer)
    assert searching.way_for(product) == stage.ways[1]


def test_every_entrant_is_read_as_it_was_written(hopper):
    for shape in SHAPES:
        for way in ways.entrants(task(*shape)):
            assert ways.read([way.kernel, list(way.config)]) == way


def test_what_one_thread_forbids_another_may_do():
    inside, leave = threading.Event(), threading.Event()

    def elsewhere():
        with searching.off(), searching.forgetting():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    inside.wait(60)
    with searching.off():
        assert not searching._searching.get()
    assert searching._searching.get()
    assert searching._aside.get() is None
    leave.set()
    thread.join()


def test_a_neighbour_that_no_descriptor_fits_asks_another_question():
    # Of one element nothing is a neighbour, and whatever divides its stride.
    asked = [
        searching.question(operands.Task(x, w.t(), torch.empty(64, 1)))
        for k in (1023, 1024)
        for x in (torch.empty(64, 1024, dtype=torch.bfloat16)[:, :k],)
        for w in (torch.empty(1, k, dtype=torch.bfloat16),)
    ]
    assert asked[0] != asked[1]
    a = torch.empty(64, 1024, dtype=torch.bfloat16)[:, :1023]
    b = torch.empty(1, 1023, dtype=torch.bfloat16).t()
    product = operands.Task(a, b, torch.empty(64, 1, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="b can't be described"):
        described.launch(product, described.CONFIGS[0])


def test_compiling_launches_nothing():
    seen = []

    class Kernel:
        def warmup(self, *args, grid, **meta):
            seen.append((args, grid, meta))

    operands.compiled(Kernel())[(3,)](1, 2, BLOCK=16)
    assert seen == [((1, 2), (3,), {"BLOCK": 16})]


def test_a_new_answer_counts_at_once(stage):
    product = task(8, 8, 8, place="cpu")
    assert searching.way_for(product) == stage.ways[1]
    answer = ["ordered", list(stage.ways[0].config)]
    searching.memory().put(searching.question(product), answer)
    assert searching.way_for(product) == stage.ways[0]
    searching.memory().forget()
    stage.clock.times["ordered"] = 0.5
    stage.clock.times["split"] = 0.7
    assert searching.way_for(product) == stage.ways[0]


def test_a_process_keeps_so_many_at_hand(monkeypatch):
    monkeypatch.setattr(remembered, "MOST_AT_HAND", 3)
    kept = remembered.Memory("matmul", "here", kept=False)
    for i in range(7):
        kept.keep_at_hand(i, i)
        assert kept.at_hand[i] == i
        assert len(kept.at_hand) <= 3


def test_nothing_is_remembered_while_forgetting(stage):
    product = task(8, 8, 8, place="cpu")
    with searching.forgetting():
        choose.product(product)
        timed = len(stage.clock.log)
        choose.product(product)
        assert len(stage.clock.log) == timed > 0
    choose.product(product)
    assert len(stage.clock.log) == 2 * timed


def test_what_refuses_gives_way_to_the_rule(stage, monkeypatch):
    def refuse(product, way, field):
        raise ValueError("not this shape")

    ruled = []
    monkeypatch.setattr(ways, "launch", refuse)
    rule = types.SimpleNamespace(launch=ruled.append)
    monkeypatch.setattr(choose, "choose", lambda product: rule)
    product = task(8, 8, 8, place="cpu")
    searching.memory().put(searching.question(product), ["ordered", [16, 16, 32, 4, 2]])
    choose.product(product)
    assert ruled == [product]


def test_where_nothing_may_be_measured_the_rule_decides(stage, monkeypatch):
    monkeypatch.setattr(searching, "may_search", lambda product: False)
    assert searching.way_for(task(8, 8, 8, place="cpu")) is None
    assert not stage.clock.log
    assert not stage.launched


def test_a_search_is_only_for_cards_at_rest(monkeypatch):
    product = task(8, 8, 8, place="cpu")
    assert not searching.may_search(product)
    card = types.SimpleNamespace(is_cuda=True)
    monkeypatch.setattr(device, "interpreting", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    asked = types.SimpleNamespace(a=card)
    monkeypatch.setattr(searching, "type", lambda x: torch.Tensor, raising=False)
    assert searching.may_search(asked)
    with searching.off():
        assert not searching.may_search(asked)
    assert searching.may_search(asked)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not searching.may_search(asked)


@pytest.mark.gpu
@pytest.mark.parametrize("sides", [(512, 512, 512), (4, 1024, 4096), (63, 65, 999)])
def test_a_search_on_a_card_finds_several_ways(sides):
    product = task(*sides, place=device.torch_device())
    with searching.forgetting():
        ended = searching.search(product)
        assert len(ended.ms) >= min(3, len(ways.entrants(product)) - len(ended.late))
        assert all(ms > 0 for ms in ended.ms.values())
        found = searching.way_for(product)
        assert searching.way_for(product) is found is not None
