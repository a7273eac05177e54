"""What the page prints is so, and what it says of that."""

import re
from pathlib import Path

import pytest
import torch
import triton

from tilebook import compile_only
from tilebook.tiling import (
    aligned,
    counts,
    demos,
    described,
    grouped,
    selftest,
    show,
    tiled,
)
from tilebook.tiling.evidence import compiled

PAGE = Path(__file__).resolve().parents[1] / "chapters" / "tiling.md"


def test_lines_of_a_compiled_kernel():
    lines = show.layout_lines(compiled(tiled)).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["#blocked", "#blocked1"]
    shown = show.ttgir(compiled(tiled), "convert_layout")
    assert shown.endswith("tensor<64x64xi16, #blocked>")
    assert "loc(" not in shown
    steps = show.ttgir(
        compiled(described, wide=True), r"local_alloc|local_load|_tma_copy"
    )
    order = ["global_to_local", "local_load", "local_alloc %", "local_to_global"]
    assert [steps.index(step) for step in order] == sorted(map(steps.index, order))
    assert "convert_layout" not in compiled(described, wide=True).ttgir


def test_barriers_of_the_engine_come_in_the_order_of_the_table():
    found = re.findall(
        r"\b(mbarrier\.init|expect_tx|bar\.sync|bulk\.tensor\S+|try_wait|mbarrier\.inval"
        r"|ld\.shared|st\.shared|fence\.proxy\.async|wait_group)",
        compiled(described, wide=True).ptx,
    )
    short = [
        name
        for before, name in zip(["", *found], found, strict=False)
        if name != before
    ]
    engine = ["bulk.tensor.2d.shared", "bulk.tensor.2d.global"]
    kinds = [next((e for e in engine if name.startswith(e)), name) for name in short]
    steps = [
        *("mbarrier.init", "expect_tx", "bar.sync", engine[0], "try_wait"),
        *("bar.sync", "mbarrier.inval", "ld.shared", "bar.sync", "st.shared"),
        *("fence.proxy.async", "bar.sync", engine[1], "wait_group", "bar.sync"),
    ]
    # Other versions wait more often while the mbarrier is set up.
    extra = {"3.6": 2, "3.7": 0, "3.9": 1}.get(triton.__version__[:3])
    remaining = iter(kinds)
    assert all(step in remaining for step in steps)
    if extra is not None:
        assert kinds.count("bar.sync") == 5 + extra


def test_a_transposed_view_needs_no_turning():
    evidence = show.turned_view().evidence
    assert evidence.barriers == evidence.shared_bytes == 0
    assert set(evidence.global_loads) == set(evidence.global_stores) == {128}


def test_sectors():
    table = counts.sectors()
    assert table.loc["naive"].tolist() == [2, 32]
    assert table.loc["tiled"].tolist() == [2, 2]
    lanes = counts.gathered()["read by a warp"]
    assert lanes.iloc[1] == 2
    assert 30 < lanes.iloc[0] <= 32


def test_sectors_of_tiles_of_terms():
    table = counts.summed()
    assert table.loc["1 by 2048"].tolist() == [256, 2048, 256]
    assert table.loc["64 by 16"].tolist() == [128, 128, 128]
    assert counts.summed(2)["sums of columns"].tolist() == [2048, 64]


def test_diff_shows_both_kernels():
    shown = show.diff(grouped, aligned).splitlines()
    assert shown[:2] == ["--- grouped", "+++ aligned"]
    assert any(line.startswith("+") and "DIV_M" in line for line in shown)


def test_budgets_are_those_of_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert round(1 / show.allowed(1), 1) == 6.7
    assert round(show.allowed(8192), -1) == 1230
    assert round(show.allowed(16384), -1) == 2450
    tile = compiled(tiled)
    odd = compiled(aligned, 4095, 4097)
    assert f"{tile.evidence.instructions} of 4 warps take" in text
    assert show.issued(tile) == tile.evidence.instructions
    # Other Tritons take more or fewer.
    assert odd.evidence.instructions == pytest.approx(1171, rel=0.2)
    if triton.__version__.startswith("3.7."):
        assert f"{odd.evidence.instructions} instructions of 4 warps" in text
        assert f"take {show.issued(odd):,.0f} clocks" in text
    assert 2 < show.allowed(16384) / show.issued(odd) < 2.6
    table = show.budgets()
    assert (table["clocks to issue"] < table["clocks allowed"] / 2).all()
    issue = table["clocks to issue"]
    nbytes = table["bytes of a tile"]
    for bits in (8, 16, 32):
        ours, theirs = f"explicit, {bits} bits", f"aligned, {bits} bits"
        assert issue[ours] / nbytes[ours] < issue[theirs] / nbytes[theirs]


def test_the_second_trip_of_descriptors_is_as_long_as_predicted():
    writes = re.findall(
        r"\bst\.shared\.b(?:8|16)\b", compiled(described, wide=True).ptx
    )
    assert len(writes) == 64
    assert 64 * 4 * 8 + 3 * 128 == 2432
    writes = re.findall(
        r"\bst\.shared\.b8\b", compiled(described, dtype=torch.uint8, wide=True).ptx
    )
    assert len(writes) * 4 * 8 + 3 * 128 == 4480


def test_waits():
    table = counts.waits()
    assert table["as they come"].tolist() == [8, 8, 8]
    assert table["by the row"].tolist() == [8, 8, 4]
    assert table["every V rows"].tolist() == [1, 1, 1]


def test_rules_are_short_and_say_something():
    said = show.rules().iloc[:, -1]
    assert said.str.len().max() < 120
    assert not said.str.contains("tensor\\(|no message", regex=True).any()


def test_stencils_are_held_up_by_issue():
    table = show.stencils()
    assert (table["by instructions"] < table["pixels by accesses"]).all()
    assert table["pixels by accesses"].tolist() == [3.2, 8, 32, 1.2, 5.3, 32]
    shares = table["of a copy"].tolist()
    expected = [0.26, 0.33, 1, 0.11, 0.21, 0.92]
    assert shares == pytest.approx(expected, rel=0.2)


def test_loops_are_told_from_the_trap_at_the_end():
    body = "        /*0010*/   MOV R1 ;\n"
    loop = ".L_x_0:\n" + 3 * body + "        /*0040*/  @P0 BRA `(.L_x_0) ;\n"
    trap = ".L_x_1:\n        /*0050*/   BRA `(.L_x_1);\n        /*0060*/   NOP;\n"
    assert show.loop_length(body + loop + body + trap) == 4
    assert show.loop_length(body + trap) == 0


def test_an_index_into_a_tile_is_refused():
    x = torch.empty(8, device="meta")
    with pytest.raises(Exception, match=r"unsupported tensor index|x\[3\]"):
        compile_only.compile(demos.third_kernel, x, x)


def test_recipes_do_what_the_table_says():
    table = demos.calls()
    given = table["gives"]
    assert given["element(x, 3)"] == "3"
    assert given["row(x as (2, n / 2), 1)"] == given["halves(x)[1]"] == "4 5 6 7"
    assert given["with_element(x, 3, 9)"] == "0 1 2 9 4 5 6 7"
    assert given["evens_and_odds(x)[1]"] == "1 3 5 7"
    assert given["quarter(x, 2)"] == "4 5"
    assert given["concatenated(high, low)"] == "4 5 6 7 0 1 2 3"
    assert given["interleaved(low, high)"] == "0 4 1 5 2 6 3 7"
    assert given["rolled(x, 3)"] == "5 6 7 0 1 2 3 4"
    assert given["reversed_(x)"] == given["tl.flip(x, 0)"] == "7 6 5 4 3 2 1 0"
    counts = table["instructions"]
    assert counts["concatenated(high, low)"] == counts["x, loaded and stored"]
    assert counts["tl.flip(x, 0)"] > 5 * counts["reversed_(x)"]
    assert table["barriers"]["reversed_(x)"] == table["barriers"]["rolled(x, 3)"] == 1
    assert table["barriers"]["element(x, 3)"] > 0


def test_steps_add_up_to_the_product():
    a, b = demos.factors()
    found = demos.steps(a, b)
    assert len(found) == 3
    assert torch.equal(found[-1][2], (a @ b)[2:4, 4:6])
    assert torch.equal(found[0][0], a[2:4, :2])
    assert torch.equal(found[2][1], b[4:, 4:])
    assert demos.written(*found[0]).splitlines()[0].split() == [
        "2",
        "0",
        "4",
        "0",
        "8",
        "0",
    ]
    assert "2 · 4 + 0 · 2 = 8" in PAGE.read_text(encoding="utf-8")


def test_the_self_test_has_five_questions_with_computed_answers():
    answers = [q.answer for q in selftest.QUESTIONS]
    assert len(answers) == 5
    assert answers[1] == "32"
    assert answers[3] == "2"
    text = PAGE.read_text(encoding="utf-8")
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.text.endswith("?")
        letter = "abcd"[question.options.index(question.answer)]
        assert question.text in text
        assert f"**{letter}**. {question.explanation}" in text
