"""What the page prints of compiled kernels is so, and what it says of that."""

import re

import pandas as pd
import pytest
import torch
import triton

from tilebook.compile_only import Artefact, Evidence
from tilebook.matmul import (
    elsewhere,
    emulated,
    evidence,
    fitting,
    ordered,
    serialised,
    show,
    turned,
    versions,
)
from tilebook.matmul.fitting import Config
from tilebook.matmul.shapes import Shape

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
BF16 = torch.bfloat16
# Compiled in less time than the page's, into the same steps.
SMALL = Config(64, 128, 64, 4, 3)


def artefact(target="sm_90", ttgir="", *, warps=8, columns=0, **found):
    """A compiled kernel that nobody compiled."""
    metadata = {"num_warps": warps, "tmem_size": columns}
    made = Artefact("kernel", target, {"ttgir": ttgir}, metadata)
    made.__dict__["evidence"] = Evidence(target, **{"registers": 32} | found)
    return made


def test_each_launch_of_a_kernel_has_its_line():
    said = show.lines(("tile", "split")).splitlines()
    heads = [line for line in said if not line.startswith("  sm_90: ")]
    assert [head.rpartition(", ")[2] for head in heads] == [
        *("matmul_kernel:", "parts_kernel:", "sum_kernel:")
    ]
    assert heads[1].startswith("split, 16 x 4096 x 4096, NT")
    assert "wgmma" in said[1]
    # Of 16 rows no wgmma can be made: it takes 64.
    assert "mma.sync" in said[3]
    assert "mma" not in said[5]


def test_every_kernel_of_the_chapter_is_recorded_as_it_is_launched():
    launches = {
        name: [each.kernel.__name__ for each in evidence.launched(*where)]
        for name, where in {
            name: (rung, None) for name, (rung, *_) in evidence.RUNGS.items()
        }.items()
        if name not in ("vectors", "streamed", "batched")
    }
    assert {name: len(found) for name, found in launches.items()} == {
        **dict.fromkeys(launches, 1), "split": 2
    }  # fmt: skip
    for name, *two in (
        ("vectors", "vectors_kernel", "sum_kernel"),
        ("streamed", "shares_kernel", "shared_kernel"),
    ):
        rung, shape, layout = evidence.RUNGS[name]
        found = evidence.launched(rung, shape=shape, layout=layout)
        assert [each.kernel.__name__ for each in found] == two
    small = evidence.launched(evidence.RUNGS["batched"][0], shape=Shape(32, 32, 32))
    assert small[0].grid == (evidence.BATCH,)


def test_stages_are_places_in_shared_memory(monkeypatch):
    monkeypatch.setattr(show, "DEPTHS", (1, 3))
    monkeypatch.setattr(show, "SIDES", SMALL)
    table = show.depths()
    step = (show.SIDES.block_m + show.SIDES.block_n) * show.SIDES.block_k * 2
    assert table["shared bytes"].tolist() == [step, 3 * step]
    assert table["places"].tolist() == [1, 3]
    assert table["steps asked for before"].tolist() == [0, 2]
    assert table["async copies in a step"].tolist() == [0, 2]
    assert table["on their way"].tolist() == [0, 2]
    assert table["wgmma under way"].tolist() == [0, 1]


def test_a_step_waits_multiplies_and_asks(monkeypatch):
    monkeypatch.setattr(show, "SIDES", SMALL)
    shown = show.pipeline(3)
    order = ["async_wait", "warp_group_dot %a", "pendings = 1", "async_copy_global"]
    assert [shown.index(step) for step in order] == sorted(map(shown.index, order))
    assert shown.count("async_copy_global_to_local") == 2
    assert "tt.load" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    alone = show.pipeline(1)
    assert "tt.load" in alone
    assert "async_copy" not in alone


def test_without_a_loop_there_is_nothing_to_show():
    with pytest.raises(ValueError, match="kernel has no loop"):
        show.loop(artefact(ttgir="tt.func @kernel() {\n}"))


def test_the_innermost_loop_is_cut_out():
    text = (
        "  %0 = scf.for %i = %a to %b {\n    %1 = scf.for %j = %a to %b {\n"
        "      one loc(#loc1)\n    } loc(#loc2)\n    two\n  }\n"
    )
    assert show.loop(artefact(ttgir=text)).splitlines()[1:] == ["      one", "    }"]


def test_the_model_refuses_what_spills_and_shortens_what_is_too_deep(monkeypatch):
    refused, deep = show.CONFIGS[2], show.CONFIGS[1]
    low = Config(16, 64, 64, 4, 6)
    monkeypatch.setattr(show, "CONFIGS", (refused, low))
    table = show.roomy()
    assert table["the model"].tolist() == ["refused", "taken"]
    assert (table["spilled"] > 0).tolist() == [True, False]
    assert table["unit"].tolist() == ["wgmma", "mma.sync"]
    assert "C7511" in table["ptxas"].iloc[0]
    # wgmma reads a stage while the next one fills; mma.sync has it in registers.
    step = (low.block_m + low.block_n) * low.block_k * 2
    assert table["shared"].iloc[1] == (low.num_stages - 1) * step
    task = evidence.task_for(evidence.SQUARE, "NN", BF16)
    assert fitting.room(task, deep, 16).num_stages == 4


def test_the_table_of_tiles_has_one_that_spills():
    assert 6 <= len(show.CONFIGS) <= 8
    assert len(set(show.CONFIGS)) == len(show.CONFIGS)
    task = evidence.task_for(evidence.SQUARE, "NN", BF16)
    wide = fitting.width(task)
    refused = [c for c in show.CONFIGS if fitting.room(task, c, wide) is None]
    assert refused == [show.CONFIGS[2]]


def test_thin_products_of_the_first_paper_have_too_few_tiles():
    table = show.paper()
    assert len(table) == len(show.PAPER)
    behind = table[:3]
    # 2 * 512 * 32 * 512 operations for (512 * 512 + 32 * 512 + 512 * 32) * 2 bytes.
    assert behind["operations for a byte"].iloc[0] == pytest.approx(28.4, abs=0.05)
    assert (behind["tiles"] < 132).all()
    assert (behind["parts"] > 1).all()
    # Only a long sum has more parts than its larger tiles cost.
    more = behind["programs"] > behind["tiles"]
    assert more.all()


@pytest.mark.parametrize("dtype", [BF16, torch.int8], ids=str)
@pytest.mark.parametrize("name", serialised.FORMS)
def test_every_form_multiplies(name, dtype, device):
    form = serialised.FORMS[name]
    form = form._replace(config=serialised.Config(32, 32, 32, 4, 1))
    a = torch.randint(-9, 10, (48, 96), dtype=torch.int8, device=device).to(dtype)
    b = torch.randint(-9, 10, (40, 96), device=device).to(BF16)
    out = torch.full((48, 40), float("nan"), dtype=BF16, device=device)
    serialised.launch(form, a, b, out)
    assert torch.equal(out, (a.double() @ b.double().t()).to(BF16))


def test_which_forms_ptxas_serialises():
    table = show.serialised()
    natural, converted = (table[name] for name in show.CONVERTED)
    slow = ["as one writes it", "BLOCK_K = 128", "four warps"]
    assert converted[converted != "clean"].index.tolist() == slow
    assert set(converted[slow]) == {"C7515"}
    expected = ["as one writes it"] if VERSION < (3, 7) else []
    assert natural[natural != "clean"].index.tolist() == expected
    said = show.serialised_said(table)
    assert said.startswith(f"Triton {triton.__version__}. a of bf16: ")
    assert f"three of five serialised: {'; '.join(slow)}." in said


def test_forms_differ_from_the_natural_one_in_one_thing():
    natural, *others = serialised.FORMS.values()
    for form in others:
        changed = [x != y for x, y in zip(form, natural, strict=True)]
        assert sum(changed) == 1


def test_warps_that_live_on_a_multiprocessor():
    kib = 1024
    count = elsewhere.warps
    assert count(artefact(registers=206, shared_bytes=147456)) == 8
    assert count(artefact(registers=124, shared_bytes=98304)) == 16
    assert count(artefact(registers=32, shared_bytes=0)) == 64
    # Registers are dealt out by eights: 33 are 40, for 12 programs of four warps.
    assert count(artefact(registers=33, warps=4)) == 48
    assert count(artefact("sm_80", registers=64, shared_bytes=164 * kib)) == 0
    assert count(artefact("sm_80", registers=64, shared_bytes=163 * kib)) == 8
    assert count(artefact("sm_100", registers=90, columns=256)) == 16
    assert count(artefact("gfx942", registers=128, shared_bytes=64 * kib)) == 8
    assert count(artefact("gfx942", registers=64, shared_bytes=65 * kib)) == 0
    # Four units of 512 registers, 128 of them for each warp.
    assert count(artefact("gfx942", registers=122)) == 16


def test_what_a_target_multiplies_and_copies_with(monkeypatch):
    tile = elsewhere.KERNELS["tile"]
    monkeypatch.setattr(elsewhere, "KERNELS", {"tile": tile})
    table = elsewhere.table()
    units = table.loc["tile", "unit"].to_dict()
    assert units == {
        "sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05", "gfx942": "mfma"
    }  # fmt: skip
    copies = table.loc["tile", "async copies"]
    assert (copies[["sm_80", "sm_90", "sm_100"]] > 0).all()
    assert copies["gfx942"] == 0
    large = table.loc["ordered, Hopper's tile"].loc["gfx942"]
    assert large["shared"] > 64 * 1024
    assert large["warps"] == 0


def test_descriptors_become_single_elements_where_there_is_no_engine():
    rung, config = elsewhere.KERNELS["described"]
    row = elsewhere.row(evidence.first(rung, config, target="gfx942"))
    assert row["TMA"] == 0
    assert re.fullmatch(r"\d+ x 16", row["loads"])


def test_the_same_tile_has_room_everywhere():
    step = (128 + 128) * 64 * 2
    assert elsewhere.PORTABLE[:5] == (128, 128, 64, 8, 3)
    for target, has in elsewhere.LIMITS.items():
        places = 3 if target in ("sm_90", "sm_100") else 2
        assert places * step <= has.largest


def test_what_the_slow_tables_show_is_begun(monkeypatch):
    begun = []
    monkeypatch.setattr(show, "ahead", begun.extend)
    show.begin()
    tiles = [each.meta.get("num_stages") for each, target in begun if target == "sm_90"]
    assert {1, 2, 3, 4, 5} <= set(tiles)
    assert begun[-1][1] == "gfx942"
    ids = [(id(each), target) for each, target in begun]
    kernels = len(elsewhere.KERNELS) * len(elsewhere.LIMITS) + 1
    assert len(set(ids)) >= kernels + len(show.CONFIGS)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_compiled_ahead_is_what_is_asked_for(monkeypatch, fails):
    calls, stops = [], []

    class Worker:
        def __init__(self, mode):
            assert mode == "compiled"

        def call(self, function, request):
            calls.append((function, request))
            if fails:
                raise RuntimeError("the compiler is out of order")

        def stop(self):
            stops.append(True)

    asked = []
    monkeypatch.setattr(evidence._worker, "Worker", Worker)
    monkeypatch.setattr(
        evidence.compile_only._worker, "call", lambda *call: asked.append(call[1:])
    )
    evidence.ahead([(evidence.launched(ordered)[0], "gfx942")] * 2).join()
    assert stops == [True]
    assert len(calls) == (1 if fails else 2)
    with pytest.raises(TypeError, match="NoneType"):
        evidence.compiled.__wrapped__(ordered, target="gfx942")
    assert asked == calls[:1]


def test_a_tile_turned_in_registers_is_told_from_one_turned_in_shared_memory():
    table = turned.table()["turned in registers"]
    assert table.to_dict() == {
        "described, bf16": False,
        "described, fp32, tf32x3": True,
        "ordered, fp32, tf32x3": False,
    }


def test_what_was_stored_in_between_is_not_turned_in_registers():
    dot = (
        "%3 = ttng.warp_group_dot %2, %y, %acc : tensor<8x8xbf16, #dot> * "
        "!ttg.memdesc<8x8xbf16> -> tensor<8x8xf32>"
    )
    turn = "%1 = tt.trans %x {order = array<i32: 1, 0>} : tensor<8x8xbf16> -> tensor<8>"
    kept = "%2 = arith.addf %1, %1 : tensor<8x8xbf16>"
    stored = (
        "%s = ttg.local_alloc %1 : (tensor<8x8xbf16>) -> !ttg.memdesc<8x8xbf16>\n"
        "%2 = ttg.local_load %s : !ttg.memdesc<8x8xbf16> -> tensor<8x8xbf16>"
    )
    assert turned.in_registers(artefact(ttgir=f"{turn}\n{kept}\n{dot}"))
    assert not turned.in_registers(artefact(ttgir=f"{turn}\n{stored}\n{dot}"))
    shared = dot.replace(" : tensor<8x8xbf16, #dot>", " : !ttg.memdesc<8x8xbf16>")
    assert not turned.in_registers(artefact(ttgir=f"{turn}\n{kept}\n{shared}"))


@pytest.mark.parametrize(
    ("version", "doubt"),
    [
        *(("3.3.1", False), ("3.4.0", True), ("3.6.0", True), ("3.7.0", True)),
        *(("3.7.0+git1", True), ("3.7.1", False), ("3.9.0", False), ("3.10.0", False)),
    ],
)
def test_which_versions_are_in_doubt(version, doubt):
    found = pd.DataFrame({"turned in registers": [True, False]}, index=["x", "y"])
    assert versions.suspect(version) is doubt
    said = turned.said(found, version)
    assert ("Check them on the card" in said) is doubt
    assert "y" not in said.partition("registers: ")[2].partition(".")[0]
    assert "nothing" in turned.said(found[1:], version)


def test_nothing_rounds_to_tf32_but_three_products():
    table = show.conversions()
    converted = table["cvt.rna.tf32"]
    assert converted["tf32"] == 0
    assert converted["tf32x3"] > 0
    counts = table["unit"].str.removesuffix(" x wgmma").astype(int)
    assert counts["tf32x3"] == 3 * counts["tf32"]


def test_bits_that_tf32_has():
    x = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 2**-11 - 2**-23, 3 - 2**-22])
    cut = torch.tensor([1.0, 1 + 2**-10, 1.0, 1.0, 3 - 2**-9])
    near = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-10, 1.0, 3.0])
    for sign in (1, -1):
        assert torch.equal(emulated.cut_tf32(sign * x), sign * cut)
        assert torch.equal(emulated.round_tf32(sign * x), sign * near)


def test_roundings_are_as_small_as_their_bits_allow():
    x, _ = emulated.operands(4096, positive=False)
    assert ((emulated.round_tf32(x) - x).abs() <= 2.0**-11 * x.abs()).all()
    off = (emulated.cut_tf32(x) - x) * x.sign()
    assert (off <= 0).all()
    assert (off > -(2.0**-10) * x.abs()).all()


def test_a_sum_in_float16_stops_at_2048_ones():
    ones = torch.ones(1, 4096, dtype=torch.float16)
    assert emulated.summed(ones, ones.t(), torch.float16).item() == 2048
    assert emulated.summed(ones, ones.t(), torch.float16, 16).item() == 4096
    assert emulated.summed(ones, ones.t(), torch.float32).item() == 4096


def test_errors_fall_in_the_order_of_their_bits():
    row = emulated.table((256,)).loc[256]
    ways = ["tf32, cut", "tf32, rounded", "bf16x3", "ieee", "tf32x3"]
    assert row[ways].is_monotonic_decreasing
    # High and rest have 16 bits in bf16, 22 in TF32.
    assert row["bf16x3"] < row["tf32, rounded"] / 2**5
    assert row["tf32x3"] < row["bf16x3"] / 2**5


def test_what_is_cut_off_never_cancels_where_all_is_positive():
    table = emulated.table((32, 2048), positive=True)
    cut, near = table["tf32, cut"], table["tf32, rounded"]
    assert cut[2048] == pytest.approx(cut[32], rel=0.1)
    assert near[2048] < near[32] / 4


def test_sums_in_float16_get_worse_with_their_length():
    table = emulated.table((32, 2048))
    assert table["fp16 sums"][2048] > 4 * table["fp16 sums"][32]
