"""What the chapter's kernels compile to: matrix units, copies, and nothing spilled."""

import functools
import re

import pytest
import torch
import triton

from tilebook import compile_only
from tilebook.attention import causal, choose, evidence, onepass
from tilebook.attention.evidence import KERNELS, task_for
from tilebook.matmul.evidence import launches

BF16, F32 = torch.bfloat16, torch.float32
UNITS = {"sm_80": "mma.sync", "sm_90": "wgmma", "sm_100": "tcgen05", "gfx942": "mfma"}
DESCRIBED = ("sm_90", "sm_100")


def options(name, length=4096):
    """Options of a task on the device "meta"."""

    def meta(*shape, dtype=BF16):
        return torch.empty(shape, dtype=dtype, device="meta")

    return {
        "full": {},
        "causal": {"right": 0},
        "window": {"left": 1024, "right": 0},
        "cap": {"right": 0, "cap": 50.0},
        "slopes": {"right": 0, "slopes": meta(4, 16, dtype=F32)},
        "bias": {
            "right": 0, "bias": meta(1, 16, length, length).expand(4, -1, -1, -1),
        },
        "dropout": {
            "right": 0, "dropout": 0.1, "seed": torch.zeros((), dtype=torch.int64),
        },
    }[name]  # fmt: skip


NEWER = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)


@functools.cache
def compiled(kernel, d, target="sm_90", dtype=BF16, name="causal", **told):
    task = task_for(d, dtype, described=target in DESCRIBED, **options(name), **told)
    return evidence.compiled(kernel, task, target=target)


def assert_clean(artefact, most=0):
    found = artefact.evidence
    assert max(found.spill_store_bytes, found.stack_bytes) <= most
    assert not found.warnings


@pytest.mark.parametrize("name", ["full", "causal"])
@pytest.mark.parametrize("d", [64, 128])
@pytest.mark.parametrize("kernel", KERNELS)
def test_hopper_copies_by_descriptors_and_spills_nothing(kernel, d, name):
    artefact = compiled(kernel, d, name=name)
    assert_clean(artefact)
    found = artefact.evidence
    assert set(found.mma) == {"wgmma"}
    assert found.tma_loads
    assert found.shared_bytes <= 227 * 1024


@pytest.mark.parametrize("name", ["window", "cap", "slopes", "bias", "dropout"])
def test_no_option_spills(name):
    for kernel in KERNELS[:3]:
        assert_clean(compiled(kernel, 128, name=name))


@pytest.mark.parametrize("d", [16, 80, 256])
@pytest.mark.parametrize("kernel", KERNELS[:3])
def test_other_sizes_of_heads(kernel, d):
    artefact = compiled(kernel, d)
    assert_clean(artefact)
    # Two tiles of gradients of 256 features leave room for 32 keys, and wgmma takes 64.
    unit = "mma.sync" if (kernel, d) == ("keys", 256) else "wgmma"
    assert set(artefact.evidence.mma) == {unit}


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.parametrize("kernel", KERNELS[:3])
def test_other_targets(kernel, target):
    for d in (64, 128):
        artefact = compiled(kernel, d, target)
        assert_clean(artefact)
        assert set(artefact.evidence.mma) == {UNITS[target]}
        assert bool(artefact.evidence.tma_loads) == (target in DESCRIBED)
        if target == "sm_80":
            assert artefact.evidence.async_copies
            assert artefact.evidence.shared_bytes <= 99 * 1024


@pytest.mark.parametrize("kernel", KERNELS[:3])
def test_float32_is_multiplied_in_three_parts(kernel):
    for d in (64, 128):
        artefact = compiled(kernel, d, dtype=F32)
        # Triton 3.9 spills a few words once.
        assert_clean(artefact, 64 if NEWER else 0)
        assert artefact.evidence.mma


def test_without_a_window_there_is_one_loop():
    """A mask, a window or a ragged end costs a loop more; what isn't asked for none."""
    products = [
        compiled("forward", 128, name=name).evidence.mma["wgmma"]
        for name in ("full", "causal", "window")
    ]
    assert products == [products[0], 2 * products[0], 3 * products[0]]


def test_no_mask_where_all_is_seen():
    """A full attention compares no indices of scores at all."""
    compares = re.compile(r"arith.cmpi .*tensor<128x128x")
    assert not compares.search(compiled("forward", 128, name="full").ttir)
    assert compares.search(compiled("forward", 128).ttir)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_the_gradient_of_a_bias_spills_nothing(target):
    for d in (64, 128, 256):
        artefact = compiled("bias", d, target, name="bias")
        assert_clean(artefact)
        assert set(artefact.evidence.mma) == {UNITS[target]}


def test_descriptors_leave_registers():
    task = task_for(128, described=False, right=0)
    pointers = evidence.compiled("forward", task).evidence.registers
    assert compiled("forward", 128).evidence.registers < pointers == 255


def test_packed_sequences_load_by_pointers():
    cu = torch.empty(9, dtype=torch.int32, device="meta")
    for kernel in KERNELS[:3]:
        whole = task_for(128, described=False, right=0, cu_q=cu, cu_k=cu)
        fields = {
            name: getattr(whole, name)[:1] for name in ("q", "k", "v", "out", "lse")
        }
        artefact = evidence.compiled(kernel, whole._replace(**fields))
        assert_clean(artefact)
        assert artefact.evidence.async_copies
        assert set(artefact.evidence.mma) == {"wgmma"}


def test_rungs_compile_without_spills():
    for rung in (onepass, causal):
        task = task_for(64)
        (found,) = launches(
            lambda wrap, rung=rung, task=task: rung.launch(task._replace(wrap=wrap))
        )
        artefact = compile_only.compile(found.kernel, *found.args, **found.meta)
        assert_clean(artefact)
        assert set(artefact.evidence.mma) == {"wgmma"}


def test_the_tables_are_whole():
    for table in (*choose.HALVES.values(), choose.SINGLES):
        assert set(table) == set(KERNELS)
        for tiles in table.values():
            assert list(tiles) == [32, 64, 128, 256]
    assert choose.family("sm_86") == choose.family("sm_120") == "ampere"
    assert choose.family("gfx942") == "amd"
    assert choose.whole_pays(task_for(128), "sm_90")
    assert not choose.whole_pays(task_for(256), "sm_90")
    assert not choose.whole_pays(task_for(64, F32), "sm_90")
    assert not choose.whole_pays(task_for(64), "sm_80")
    small = choose.forward_config(task_for(64, length=20), "sm_90")
    assert (small.block_m, small.block_n) == (32, 32)
