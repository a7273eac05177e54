"""What L2 is asked to keep: when, in which instruction, and what is said of it."""

import pytest
import torch

from tilebook import device, measure
from tilebook.measure.runner import measure as run
from tilebook.measure.simulated import rehearse, retimed
from tilebook.measure.timing import here
from tilebook.softmax import (
    backward,
    backward_cooperative,
    caches,
    conclusions_policies,
    cooperative,
    evidence,
    fused,
    persistent,
    ragged,
    several,
)
from tilebook.softmax import experiments_policies as experiments

NAME = "softmax-policies"
# The rungs that ask, with a length of row for each.
ASKING = {
    several: 512,
    fused: 4096,
    persistent: 4096,
    ragged: 4097,
    cooperative: 65536,
    backward: 4096,
    backward_cooperative: 65536,
}


def test_only_what_l2_does_not_hold_is_kept():
    held = device.current().l2_bytes or caches.L2
    small, large = (
        torch.empty(size, dtype=torch.uint8, device="meta") for size in (held, held + 1)
    )
    assert caches.policy(small) == ""
    assert caches.policy(large) == "evict_last"
    half = torch.empty(held // 2 + 1, dtype=torch.uint8, device="meta")
    assert caches.policy(half) == ""
    assert caches.policy(half, half) == "evict_last"


@pytest.mark.parametrize(
    ("rung", "n"),
    ASKING.items(),
    ids=lambda it: it if isinstance(it, int) else it.__name__.rpartition(".")[2],
)
def test_loads_say_it(rung, n):
    many, few = (evidence.compiled(rung, m, n) for m in (2**26 // n, 2**20 // n))
    for artefact in many:
        # With Triton's own form for it, or with a policy made for all loads.
        assert "L2::evict_last" in artefact.ptx
    for artefact in few:
        assert "evict_last" not in artefact.ptx


@pytest.mark.parametrize(
    ("n", "read", "programs"), [(8192, 1, 2), (16384, 2, 2), (32768, 2, 1)]
)
def test_what_is_read_again_may_go(n, read, programs):
    (artefact,) = evidence.compiled(backward, 2**26 // n, n)
    assert ("L2::evict_first" in artefact.ptx) == (read == 2)
    # So many programs of 1,024 threads have room, as the page says.
    assert 64 // artefact.evidence.registers == programs
    assert not artefact.evidence.spill_store_bytes


def test_single_rows_stay_in_registers():
    (artefact,) = evidence.compiled(backward, 4096, 16384, torch.float32)
    assert artefact.evidence.global_loads == {128: 8}
    assert not artefact.evidence.spill_store_bytes


def shrink(patch):
    patch.setattr(experiments, "SHAPE", (2, 32))


@pytest.fixture(scope="module")
def measured(interpreted):
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return rehearse(NAME)


def test_results_are_right_and_everything_is_measured(measured):
    assert not measured.problems()
    cases = {(row["op"], row["shape"]["after"], row["impl"]) for row in measured.rows}
    sizes = experiments.AFTERWARDS
    wanted = {
        ("softmax", size, impl) for size in sizes for impl in experiments.POLICIES
    }
    assert cases == wanted | {
        ("softmax_backward", 0, impl) for impl in experiments.POLICIES
    }
    assert set(experiments.AFTERWARDS_BRIEF) < set(experiments.AFTERWARDS)
    assert conclusions_policies.GUEST in experiments.AFTERWARDS_BRIEF


def test_values_follow_the_times(measured):
    swayed = retimed(measured, 0.5, impl="last", after=0)
    assert swayed.value("last_gain") == pytest.approx(2 * measured.value("last_gain"))
    assert swayed.value("first_gain") == pytest.approx(measured.value("first_gain"))
    assert swayed.value("guest_us") > measured.value("guest_us")
    assert swayed.value("guest_mib") == 24


@pytest.mark.parametrize(
    ("claim", "impl", "good", "bad"),
    [("keeping_pays", "last", 0.5, 2), ("dropping_costs", "first", 2, 0.5)],
)
def test_claims_hold_and_fail(measured, claim, impl, good, bad):
    (held,) = [c for c in measure.claims(NAME) if c.name == claim]
    for factor, broken in ((good, False), (bad, True)):
        swayed = retimed(measured, factor, impl=impl)
        assert (held.broken(swayed) is not None) == broken


def test_every_claim_is_swayed():
    names = {c.name for c in measure.claims(NAME)}
    assert names == {"keeping_pays", "dropping_costs"}


@pytest.mark.gpu
@pytest.mark.timed
@pytest.mark.slow
def test_measures_here():
    budget = measure.Budget(2, 0.005, brief=True)
    record = run(measure.find(NAME), here(), budget, attempts=1)
    assert record.rows
    assert not record.problems()
