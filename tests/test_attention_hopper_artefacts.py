"""Attention for Hopper as it ships, compiled: nothing spills, nothing is serialised."""

import re

import pytest
import torch
import triton

from tilebook import compile_only, testing
from tilebook.attention import (
    cooperative,
    described,
    folded,
    launching,
    overlapped,
    wgmma,
)
from tilebook.attention.launching import Task
from tilebook.hopper.launching import SHARED
from tilebook.matmul.evidence import launches

RUNGS = (described, cooperative, overlapped, folded)
BF16, FP16 = torch.bfloat16, torch.float16
# Queries, keys, columns to leave out; causal, keys before its own.
KINDS = {
    "full": (4096, 4096, 0, False, None),
    "causal": (4096, 4096, 0, True, None),
    "ragged": (4100, 4100, 8, False, None),
    "ragged-causal": (5100, 4100, 8, True, None),
    "window": (4100, 4100, 0, True, 1024),
}


# A few scalars of a tile: once a tile, and not in the loop over blocks.
SPILLED = {
    ("folded", 256, "ragged", 2): 16,
    ("folded", 256, "window", 2): 8,
    ("folded", 128, "ragged", 3): 20,
}
NEWER = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
"""Triton 3.9 holds more at once, and where registers are few `folded` spills."""


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def task_for(width, kind="full", dtype=BF16):
    """A task without memory: four query heads share one of keys."""
    rows, keys, less, causal, left = KINDS[kind]

    def empty(heads, length):
        shape = (4, heads, length, width - less)
        return torch.empty(shape, dtype=dtype, device="meta")

    q, k = empty(16, rows), empty(4, keys)
    lse = torch.empty(4, 16, rows, device="meta")
    return Task(q, k, k, q, lse, 0.1, left, 0 if causal else None)


def compiled(rung, width, config=None, kind="full", dtype=BF16):
    task = task_for(width, kind, dtype)
    (found,) = launches(lambda wrap: rung.launch(task._replace(wrap=wrap), config))
    return compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)


def loops(artefact):
    """What is done for each block: short loops that multiply and take powers."""
    lines = artefact.sass.splitlines()
    labels, found = {}, []
    for at, line in enumerate(lines):
        if label := re.match(r"\s*(\.L\S+):", line):
            labels[label[1]] = at
        jump = re.search(r"BRA `\((\.L\S+)\)", line)
        if jump and at - labels.get(jump[1], -600) < 600:
            loop = "\n".join(lines[labels[jump[1]] : at])
            # What loops over tiles has more.
            if loop.count("MUFU.EX2") == 66 and loop.count("WARPGROUP.ARRIVE") == 2:
                found.append(loop)
    return found


def cases():
    """Every configuration, in every kind; now and then in float16."""
    quick = {
        (described, 128, "causal"), (cooperative, 64, "full"),
        (overlapped, 128, "full"), (folded, 64, "full"),
        (folded, 128, "causal"), (folded, 256, "ragged-causal"),
    }  # fmt: skip
    for rung in RUNGS:
        for width, configs in rung.CONFIGS.items():
            for number, config in enumerate(configs):
                for at, kind in enumerate(KINDS):
                    if kind == "window" and getattr(config, "parts", 2) == 3:
                        # `config_for` takes two.
                        continue
                    soon = not number and (rung, width, kind) in quick
                    marks = [] if soon else [pytest.mark.slow]
                    dtype = FP16 if (number + at) % 3 == 2 else BF16
                    yield pytest.param(
                        rung, width, config, kind, dtype, marks=marks,
                        id=f"{name(rung)}-{width}-{number}-{kind}",
                    )  # fmt: skip


@pytest.mark.parametrize(("rung", "width", "config", "kind", "dtype"), [*cases()])
def test_compiles_clean(rung, width, config, kind, dtype):
    found = compiled(rung, width, config, kind, dtype).evidence
    parts = getattr(config, "parts", 1)
    most = SPILLED.get((name(rung), width, kind, parts), 0)
    if NEWER and name(rung) == "folded":
        most = 400
    assert max(found.spill_store_bytes, found.spill_load_bytes) <= most
    assert found.stack_bytes <= most
    assert not found.warnings
    assert set(found.mma) == {"wgmma"}
    assert found.tma_loads
    assert found.tma_stores
    # All that comes and goes otherwise is a logarithm, or the number of a tile.
    assert not found.async_copies
    assert not found.global_loads
    assert set(found.global_stores) <= {32}
    if rung is not described:
        assert found.shared_bytes <= launching.shared_bytes(config, width)
    assert found.shared_bytes <= SHARED


@pytest.mark.parametrize("rung", RUNGS[1:], ids=name)
def test_groups_of_warps_are_there_and_registers_are_shared_out(rung):
    artefact = compiled(rung, 128, rung.CONFIGS[128][0])
    counts = re.findall(r"setmaxnreg\.\w+\.sync\.aligned\.u32\s+(\d+)", artefact.ptx)
    # Who computes has more than a fair share of the registers, who loads has fewer.
    assert {240, 24} < {int(count) for count in counts}
    assert artefact.evidence.registers == 65536 // (3 * 128) // 8 * 8


def test_only_from_overlapped_on_two_products_are_in_flight():
    """One product stays behind when the scores are waited for."""
    for rung, behind in ((cooperative, False), (overlapped, True)):
        ptx = compiled(rung, 128, rung.CONFIGS[128][0]).ptx
        assert bool(re.search(r"wgmma\.wait_group\.sync\.aligned\s+1;", ptx)) == behind


@pytest.mark.slow
def test_barriers_of_their_own_save_a_wait_for_all_warps():
    """What `wgmma` says of keys and values."""
    config = overlapped.CONFIGS[128][0]
    apart = loops(compiled(overlapped, 128, config))
    with testing.mutated_module(
        overlapped, "bars = (k_arrived, v_arrived,", "bars = (k_arrived, k_arrived,"
    ):
        together = loops(compiled(overlapped, 128, config))
    assert len(apart) == len(together) == 2
    for one, other in zip(apart, together, strict=True):
        assert one.count("BAR.SYNC") + 1 == other.count("BAR.SYNC")


@pytest.mark.slow
def test_packing_saves_moves_where_registers_are_few():
    """Why `rounded` packs for three groups: nothing rearranges halves in a loop."""
    config = folded.CONFIGS[64][0]
    assert config.parts == 3
    packed = loops(compiled(folded, 64, config))
    with testing.mutated_module(wgmma, "if like.shape[1] <= 64:", "if False:"):
        plain = loops(compiled(folded, 64, config))
    assert not any("PRMT" in loop for loop in packed)
    assert any("PRMT" in loop for loop in plain)
