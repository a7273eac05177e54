"""What the page prints of compiled kernels is so, and what it says of that."""

import pytest
import torch
import triton

from tilebook import schedules
from tilebook.hopper import elsewhere, folded, places, show, smallest
from tilebook.matmul import evidence
from tilebook.testing import mutants

BF16 = torch.bfloat16


def test_the_smallest_product_multiplies_in_every_order():
    luck = torch.Generator().manual_seed(3)
    a = torch.randint(-2, 3, (64, 32), generator=luck).to(BF16)
    b = torch.randint(-2, 3, (32, 32), generator=luck).to(BF16)
    for seed in range(12):
        assert torch.equal(smallest.multiply(a, b, seed), a @ b)


@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_the_smallest_hand_over_hands_over_everything(slots):
    x = torch.randn(5 * smallest.BLOCK[0] - 3, smallest.BLOCK[1]).to(BF16)
    for seed in (0, 1, 10, 17):
        assert torch.equal(smallest.hand_over(x, slots, seed), x)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # A phase that is over from the start; and one that never comes.
        ("((tile // SLOTS) & 1) ^ 1", "(tile // SLOTS) & 1"),
        ("ring.index(slot))", "ring.index(0))"),
        ("mbarrier.wait(free.index(slot), ((tile // SLOTS) & 1) ^ 1)", "pass"),
    ],
)
def test_a_hand_over_that_asks_wrongly_is_found(old, new):
    ((_, asks),) = mutants(smallest.ask, {"wrong": (old, new)})
    x = torch.randn(6 * smallest.BLOCK[0], smallest.BLOCK[1]).to(BF16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(smallest.handed_kernel.fn.__globals__, "ask", asks)
        found = []
        for seed in range(12):
            try:
                found.append(torch.equal(smallest.hand_over(x, 2, seed), x))
            except schedules.ScheduleError:
                found.append(False)
    assert not all(found)


def test_what_the_smallest_product_asks_for():
    said = show.product_ptx().splitlines()
    assert "4 x wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16" in said
    order = [line.partition(" x ")[2] for line in said]
    wanted = ("mbarrier.arrive.expect_tx", "cp.async.bulk.tensor.2d.shared")
    wanted += ("mbarrier.try_wait", "wgmma.mma_async", "wgmma.wait_group", "stmatrix")
    wanted += ("fence.proxy.async", "cp.async.bulk.tensor.2d.global")
    places = [next(i for i, x in enumerate(order) if x.startswith(w)) for w in wanted]
    assert places == sorted(places)
    assert said[places[1]].startswith("2 x ")
    assert show.product().evidence.mma == {"wgmma": 4}


def test_a_missing_fence_is_told():
    said = show.unfenced()
    assert said == (
        "the program wrote out, and an engine is sent there with no fence between"
    )


def test_the_hand_over_is_told_until_a_slot_is_used_again():
    said = show.handed(2).splitlines()
    loads = [line for line in said if line.startswith("ask") and " load " in line]
    assert [line.split()[-1] for line in loads] == ["ring[0]", "ring[1]", "ring[0]"]
    assert said[-1] == loads[-1]
    given = next(i for i, line in enumerate(said) if "arrive  free[0]" in line)
    assert said.index(loads[0]) < given < len(said) - 1


def test_registers_are_what_a_multiprocessor_has():
    table = show.registers()
    assert set(table["of all threads"]) == {64512}
    assert (table["of all threads"] <= 65536).all()
    assert table.loc["folded"].tolist()[:4] == [168, 232, 232, 40]
    assert table.loc["automatic"].tolist()[:4] == [168, 40, 232, 232]


def test_registers_that_nobody_sets_are_an_error(monkeypatch):
    real = show.compiled("cooperative")

    class Other:
        ptx = real.ptx.replace("\t232;", "\t224;")
        ttgir, metadata = real.ttgir, real.metadata

    monkeypatch.setattr(show, "GROUPS", ("cooperative",))
    monkeypatch.setattr(show, "compiled", lambda name: Other)
    with pytest.raises(ValueError, match="are not among"):
        show.registers()


def test_tiles_ask_for_what_their_sides_say():
    table = show.tiles()
    rate = table[f"TB/s at {show.RATE} TFLOP/s"]
    assert table.loc["128 x 256", "operations for a byte"] == 85.3
    assert rate["128 x 256"] == pytest.approx(9.375, abs=0.05)
    assert rate["128 x 128"] == pytest.approx(12.5)
    # Two tiles that share columns are one of twice the rows.
    assert table.loc["128 x 128", "in a cluster of two"] == rate["128 x 256"]
    assert rate.idxmax() == "64 x 256"
    assert rate.idxmin() == "256 x 192"


def test_ends_cost_less_the_longer_a_sum_is():
    table = show.ends()
    assert table.loc[512, "products"] == 8192
    assert table.loc[512, "busy"] == pytest.approx(8192 / 9692, abs=0.001)
    assert table["busy"].is_monotonic_increasing


def test_a_rounding_left_to_ptxas_serialises():
    said = show.rounding()
    before, _, after = said.partition("without packed:")
    assert "ptxas" not in before
    assert "C7514" in after
    assert "serialized" in after
    # Whoever asks later gets the kernel as it is.
    assert not show.compiled("folded").evidence.warnings
    assert "packed(left), packed(right)" in show.PACKED
    assert "packed" in folded.consume.fn.__code__.co_names


def test_without_its_turn_no_order_of_ping_pong_is_right():
    said = show.unhanded(6)
    assert said.startswith("6 orders: 0 right, ")
    counts = [int(word) for word in said.split() if word.isdigit()]
    assert sum(counts[1:]) == counts[0] == 6


def test_where_partitions_take_effect():
    table = elsewhere.effects()
    parts = table["partitions"]
    works = ["as `automatic` asks", "a tile of 64 x 128"]
    assert parts[parts == "3"].index.tolist() == works
    fails = ["descriptors of the host", "a tile of 64 x 256"]
    assert parts[parts == "the compiler fails"].index.tolist() == fails
    assert (parts.drop(works + fails) == "1").all()
    assert (table.loc[works, "products"] == "waited for").all()
    assert (table.loc[works, "warps"] == "12").all()
    slow = table["ptxas"] != ""
    assert slow[slow].index.tolist() == ["not asked", "with flatten=True"]
    assert (table.loc[slow, "spilled"].astype(int) > 0).all()


def test_the_request_stays_where_nothing_came_of_it():
    artefact = elsewhere.compiled("with eight warps")
    assert "tt.warp_specialize" in artefact.ttgir
    assert "ttg.warp_specialize(" not in artefact.ttgir
    assert elsewhere.partitions(artefact) == 1


def test_what_a_compiler_that_fails_prints_is_kept_from_the_page(capsys):
    elsewhere.compiled.cache_clear()
    assert elsewhere.compiled("descriptors of the host") is None
    assert capsys.readouterr().err == ""


def test_partitions_in_ttgir():
    mine = show.specialised("as `automatic` asks").splitlines()
    kinds = [line.split("= ")[-1].split()[0] for line in mine]
    assert kinds[:5] == ["wait_barrier"] * 2 + ["warp_group_dot"] + (
        ["arrive_barrier"] * 2
    )
    assert "isAsync" not in "".join(mine)
    loads = show.specialised("as `automatic` asks", 0)
    assert "warp_group_dot" not in loads
    assert "async_tma_copy_global_to_local" in loads
    whole = show.specialised("with eight warps")
    assert "isAsync = true" in whole
    assert "pendings = 1" in whole
    assert max(map(len, (*mine, *whole.splitlines()))) <= 88


def test_a_cluster_is_said_in_ptx():
    assert ".reqnctapercluster 2" in show.cluster()


def test_multicast_came_later():
    said = show.multicast()
    old = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)
    assert ("has no argument" in said) is old


def test_four_targets(monkeypatch):
    monkeypatch.setattr(elsewhere, "TARGETS", ("sm_90", "gfx942"))
    table = elsewhere.table()
    assert table["unit"].tolist() == ["wgmma", "mfma"] * 2
    assert table["partitions"].tolist() == [1, 1, 3, 1]
    assert (table["TMA"][:, "gfx942"] == 0).all()


def test_what_the_slow_tables_show_is_begun(monkeypatch):
    begun = []
    monkeypatch.setattr(show.evidence, "ahead", begun.extend)
    show.begin()
    more = (elsewhere.wanted(), places.wanted())
    assert len(begun) == len(show.RUNGS) + sum(map(len, more))
    assert {target for _, target in begun} == set(elsewhere.TARGETS)
    names = {each.kernel.__name__ for each, _ in begun}
    assert names == {"matmul_kernel"}


def test_lines_name_each_kernel():
    said = show.lines(["made", "cooperative"]).splitlines()
    assert said[::2] == ["made:", "cooperative:"]
    assert "setmaxnreg" not in said[1]
    assert evidence.first(show.RUNGS["made"], layout="NT").evidence.line() in said[1]
