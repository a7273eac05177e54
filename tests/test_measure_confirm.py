"""A sample that is measured again agrees with its record, or that doesn't hold."""

import copy
import json

import pytest
import torch

from tilebook import device, measure
from tilebook.measure import __main__ as command
from tilebook.measure import confirm as confirming
from tilebook.measure import provenance, registry, runner, schema
from tilebook.measure.errors import RecordError
from tilebook.measure.record import Record
from tilebook.measure.simulated import Simulated, retimed
from tilebook.measure.timing import Budget, Timing

NAME = "sample-add"
SIZES = (1024, 2048, 4096)


def sample(bench):
    for n in bench.choose(SIZES, SIZES[1:2]):
        for impl, ms in (("ours", 1.0), ("peer", 1.1)):
            bench.row(
                impl=impl,
                ours=impl == "ours",
                shape={"n": n},
                dtype=torch.float32,
                regime="cold",
                timing=Timing(ms, ms * 0.99, ms * 1.01, (ms,) * bench.budget.rounds),
                bytes=12 * n,
                relative_error=1e-7,
                extra={"sets": 3, "lanes": 4},
            )


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """A record of code that has changed since, and a card like the one it is of."""
    measure.experiments()
    for name in ("_experiments", "_values", "_claims"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    measure.experiment(NAME, question="Why?", op="add", modules=["check"])(sample)
    monkeypatch.setattr(device, "launch_device_type", lambda: "cuda")
    for name in ("has", "require"):
        monkeypatch.setattr(device, name, lambda feature: True)
    for module in (runner, confirming):
        monkeypatch.setattr(module, "here", Simulated)
    monkeypatch.setattr(measure.records, "RECORDS", tmp_path)
    monkeypatch.delenv("TILEBOOK_LIVE", raising=False)
    monkeypatch.setattr(provenance, "today", lambda: "2026-01-02")
    made = runner.measure(registry.find(NAME), Simulated(), Budget(3)).data()
    made["provenance"]["digest"]["check"] = "0" * 12
    schema.write(tmp_path / "simulated" / f"{NAME}.json", made)
    monkeypatch.setattr(provenance, "today", lambda: "2026-03-04")
    return measure.load(NAME, "simulated")


def again(kept, **changes):
    """What a second measurement of the brief cases finds, like the first but for."""
    rows = copy.deepcopy([row for row in kept.rows if row["shape"]["n"] == 2048])
    return Record(
        kept.name, kept.question, rows, kept.canary, dict(kept.provenance), True
    )


def test_a_record_that_holds_says_so_and_keeps_its_numbers(kept):
    assert kept.stale() == ["check"]
    found, path = confirming.confirm(NAME)
    read = measure.load(NAME, "simulated")
    assert read == found
    assert read.stale() == []
    assert read.rows == kept.rows
    assert read.provenance == kept.provenance
    assert read.confirmed["date"] == "2026-03-04"
    assert (read.confirmed["rows"], read.confirmed["moved"]) == (2, 0.0)
    assert read.stamp().endswith(
        ", 2026-01-02; 2 of 6 rows came out within 0.0% on 2026-03-04, after a change "
        "of check."
    )
    # A later change isn't covered.
    data = json.loads(path.read_text())
    data["confirmed"]["digest"]["check"] = "1" * 12
    schema.write(path, data)
    later = measure.load(NAME, "simulated")
    assert later.stale() == ["check"]
    assert "an earlier version of this code (moved since: check)" in later.stamp()


def test_the_command_line(kept, capsys, monkeypatch):
    assert command.main(["--confirm", NAME]) == 0
    assert "2 of 6 rows came out within 0.0%" in capsys.readouterr().out
    monkeypatch.setattr(device, "has", lambda feature: False)
    assert command.main(["--confirm", NAME]) == 2
    assert "--confirm measures, and there is no GPU here" in capsys.readouterr().err


def test_a_time_that_moved_is_no_confirmation(kept):
    slower = retimed(kept, 1.2, impl="ours")
    schema.write(measure.records.RECORDS / "simulated" / f"{NAME}.json", slower.data())
    with pytest.raises(RecordError, match="not confirmed; record it again:\n  ours on"):
        confirming.confirm(NAME)
    assert measure.load(NAME, "simulated").confirmed is None


@pytest.mark.parametrize("factor", [0.94, 1.06])
def test_faster_and_slower_count_alike(kept, factor):
    made = retimed(again(kept), factor, impl="ours")
    moved, problems = confirming.compare(kept, made)
    assert moved == pytest.approx(max(abs(factor - 1), abs(1 / factor - 1)))
    # Ours against the peer, and the peer against ours.
    assert len(problems) == 2
    assert "ours on add n=2048 float32, cold, moved by" in problems[0]
    assert "against those beside it, may by 5.0%" in problems[0]


def test_what_moves_alike_is_the_cards(kept):
    moved, problems = confirming.compare(kept, retimed(again(kept), 1.08, n=2048))
    assert moved == pytest.approx(0)
    assert not problems
    _, problems = confirming.compare(kept, retimed(again(kept), 1.12, n=2048))
    assert [line.partition(" moved ")[2] for line in problems] == [
        "by +12.0% in all"
    ] * 2


def test_rounds_that_vary_allow_more_and_no_more_than_a_tenth(kept):
    made = again(kept)
    for row in made.select(impl="ours"):
        row["ms_low"], row["ms_high"] = 0.5, 1.5
    near = retimed(made, 1.09, impl="ours")
    # Its peer varies as little as before, and is as far from ours as ours from it.
    assert [line[:4] for line in confirming.compare(kept, near)[1]] == ["peer"]
    far = retimed(made, 1.11, impl="ours")
    assert (
        sum(line.startswith("ours") for line in confirming.compare(kept, far)[1]) == 2
    )


def test_what_else_a_record_says_has_to_be_equal(kept):
    made = again(kept)
    made.rows[0]["extra"]["sets"] = 9
    assert confirming.compare(kept, made)[1] == []
    made.rows[0]["extra"]["lanes"] = 5
    (problem,) = confirming.compare(kept, made)[1]
    assert problem.endswith("had {'lanes': 4}, has {'lanes': 5}")


def test_errors_may_not_grow(kept):
    made = again(kept)
    for row in made.rows:
        row["relative_error"] = 1.3e-7
    (problem,) = confirming.compare(kept, made)[1]
    assert problem.startswith("ours on add n=2048")
    assert problem.endswith("its error was 1e-07, is 1.3e-07")


def test_other_software_and_unknown_rows_confirm_nothing(kept):
    made = again(kept)
    made.provenance["triton"] = "9.9"
    made.rows[1]["impl"] = "stranger"
    problems = confirming.compare(kept, made)[1]
    assert any(line.startswith("triton was ") for line in problems)
    assert any("0 rows on record, not one" in line for line in problems)


def test_a_card_without_a_record_has_nothing_to_confirm(kept, tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        confirming.confirm(NAME, folder=tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(date="today"), "confirmed.date"),
        (lambda d: d.update(digest={}), "confirmed.digest"),
        (lambda d: d.update(rows=0), "a row or more"),
        (lambda d: d.update(moved=-0.1), "how far it moved"),
        (lambda d: d.pop("commit"), "confirmed.commit is missing"),
        (lambda d: d.update(more=1), "confirmed.more is not part"),
    ],
)
def test_what_is_written_has_a_form(kept, spoil, message):
    found, path = confirming.confirm(NAME)
    data = found.data()
    spoil(data["confirmed"])
    with pytest.raises(RecordError, match=message):
        schema.write(path, data)
