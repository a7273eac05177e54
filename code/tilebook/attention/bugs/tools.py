"""The tools that find the chapter's planted bugs."""

import torch

from tilebook import testing
from tilebook.parallel.bugs import Bug, Case, Tool


def _complaint(bug: Bug, case: Case, *inputs: torch.Tensor) -> str | None:
    try:
        testing.assert_close(case.run(*inputs), bug.truth(*inputs), length=bug.length)
    except AssertionError as error:
        return str(error)
    return None


def _future(bug: Bug, case: Case) -> str | None:
    q, k, v = bug.friendly()
    before = case.run(q, k, v)
    for n in range(1, k.shape[1]):
        later = k.clone()
        later[:, n:] *= 1000
        changed = (case.run(q, later, v) != before)[:, :n].any(dim=2).any(dim=0)
        if bool(changed.any()):
            row = int(changed.nonzero()[0])
            return (
                f"keys from {n} on were multiplied by 1000, and row {row}, which sees "
                f"none of them, has changed; {int(changed.sum())} of {n} rows have"
            )
    return None


def _lengths(bug: Bug, case: Case) -> str | None:
    q, k, v = bug.friendly()
    for n in (n for n in testing.lengths() if 0 < n <= k.shape[1]):
        part = (q, k[:, :n].contiguous(), v[:, :n].contiguous())
        if complaint := _complaint(bug, case, *part):
            return f"{n} keys: {complaint}"
    return None


def _unequal(bug: Bug, case: Case) -> str | None:
    q, k, v = bug.friendly()
    m = q.shape[1]
    for rows in (m, m - 1, 1):
        last = q[:, m - rows :].contiguous()
        if complaint := _complaint(bug, case, last, k, v):
            return f"the last {rows} of {m} queries: {complaint}"
    return None


def _whose(bug: Bug, case: Case) -> str | None:
    q, k, v = bug.inputs()
    heads, few = q.shape[0], k.shape[0]
    # Whatever the weights are, a head's result is the number of the head it read.
    told = torch.arange(few, device=v.device).to(v.dtype)[:, None, None].expand_as(v)
    used = case.run(q, k, told.contiguous())[:, 0, 0].round().int().tolist()
    own = [h // (heads // few) for h in range(heads)]
    if used == own:
        return None
    return f"heads 0 to {heads - 1} read those of keys {used}, and should read {own}"


def _unseen(bug: Bug, case: Case) -> str | None:
    q, k, v, seen = bug.friendly()
    seen = seen.clone()
    seen[1] = False
    if complaint := _complaint(bug, case, q, k, v, seen):
        everything = bug.truth(q, k, v, torch.ones_like(seen))
        away = (case.run(q, k, v, seen) - everything)[:, 1].abs().max()
        return (
            f"query 1 sees no key: {complaint}\n"
            f"From what it would get without a mask it is {away:.2f} away."
        )
    return None


FUTURE = Tool("an invariant: what comes later changes nothing before it", _future)
LENGTHS = Tool("ragged lengths, testing.lengths()", _lengths)
UNEQUAL = Tool("fewer queries than keys", _unequal)
WHOSE = Tool("values that tell their head", _whose)
UNSEEN = Tool("a query that sees nothing", _unseen)
