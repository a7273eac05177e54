"""Every committed record is valid, possible, of this code, and says what pages say."""

import json
import tomllib
from pathlib import Path

import pytest

from tilebook import measure
from tilebook.measure import roofline

COMMITTED = measure.committed()
RACING = "torch.compile"
"""A peer that measures candidates of its own for a product, and keeps one."""
NAMES = [e.name for e in measure.experiments()]
PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
DRAFTS = tomllib.loads(PYPROJECT.read_text())["tool"]["tilebook"]["drafts"]


def which(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture(params=COMMITTED, ids=which)
def record(request):
    path = request.param
    return measure.load(path.stem, gpu=path.parent.name)


def test_record_is_of_a_declared_experiment(record):
    made = measure.find(record.name)
    assert record.question == made.question, remedy(record)


def test_record_is_of_this_code(record):
    moved = record.stale()
    assert not moved, f"code moved on ({', '.join(moved)}); {remedy(record)}"


def test_record_is_possible(record):
    problems = record.problems()
    assert not problems, "\n".join([*problems, remedy(record)])


def test_ceilings_kept_still(record):
    """Memory's does; that of arithmetic moves with power, and readers are told."""
    drift = record.drift()
    rated = any(row["tflops"] is not None for row in record.rows)
    most = roofline.AT_THE_POWER_LIMIT if rated else roofline.DRIFT
    assert drift <= most, f"ceilings drifted by {drift:.1%}; {remedy(record)}"
    ends = (record.canary[end] for end in ("open", "close"))
    assert roofline.drift(*ends, []) <= roofline.DRIFT
    assert ("ceilings moved by" in record.stamp()) == (drift > roofline.DRIFT)


def test_rates_of_ours_are_of_checked_results(record):
    rated = [row for row in record.rows if row["ours"] and row["gbps"] is not None]
    assert all(row["relative_error"] is not None for row in rated)


def test_claims_hold(record):
    broken = [f"{claim.text} ({detail})" for claim, detail in record.broken_claims()]
    assert not broken, "\n".join([f"not so on {record.gpu}:", *broken])


def test_quoted_values_can_be_derived(record):
    values = record.values()
    assert values.keys() == measure.values(record.name).keys()


def test_peers_agree_across_experiments():
    """One peer on one case gives the same time wherever it was measured, within 5 %, or
    where arithmetic has a part in it, within what power allows. Cards differ there by
    more: then the share of what each could do at the time has to agree."""
    times, ceilings = {}, {}
    for path in COMMITTED:
        record = measure.load(path.stem, gpu=path.parent.name)
        seen = [record.canary[end]["matmul_tflops"] for end in ("open", "close")]
        ceilings[path.parent.name, path.stem] = sum(seen) / 2
        for row in record.rows:
            if not row["ours"] and row["regime"] in ("cold", "steady"):
                keys = ("op", "impl", "dtype", "regime", "shape")
                case = json.dumps([path.parent.name, *(row[k] for k in keys)])
                rated = row["tflops"] is not None
                times.setdefault((case, rated), {})[path.stem] = row["ms"]

    def apart(case, found, rated):
        most = 1 + roofline.AT_THE_POWER_LIMIT if rated else 1.05
        slug = json.loads(case)[0]
        shares = [ms * ceilings[slug, name] for name, ms in found.items()]
        kinds = [list(found.values()), *([shares] if rated else [])]
        return all(max(each) > most * min(each) for each in kinds)

    racing = {
        key: apart(*key[:1], found, key[1])
        for key, found in times.items()
        if key[1] and json.loads(key[0])[2] == RACING and len(found) > 1
    }
    assert racing
    assert sum(racing.values()) < len(racing) / 2
    assert not {
        case: found
        for (case, rated), found in times.items()
        if (case, rated) not in racing and apart(case, found, rated)
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_on_record(name):
    if name.partition("-")[0] in DRAFTS:
        pytest.skip("its chapter is a draft")
    assert measure.gpus(name), f"on a GPU, run: make record ONLY={name}"


@pytest.mark.parametrize("name", NAMES)
def test_experiment_names_code_that_exists(name):
    assert set(measure.find(name).modules) <= measure.find(name).digest().keys()


@pytest.mark.parametrize("name", NAMES)
def test_claims_and_values_say_something(name):
    claims = measure.claims(name)
    assert len({claim.text for claim in claims}) == len(claims) > 0
    assert all(claim.text.endswith(".") for claim in claims)


def remedy(record):
    return f"re-measure on {record.gpu}: make record (or confirm) ONLY={record.name}"
