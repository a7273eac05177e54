"""What a failed comparison says: first wrong element, how many, where, why."""

import textwrap
from collections.abc import Mapping

import numpy as np

from tilebook.testing.hints import Difference, likely_reason
from tilebook.testing.places import extent
from tilebook.testing.precision import format_of, ulp


def findings(
    diff: Difference, limits: np.ndarray, *, name: str = "out", offset: int = 0
) -> dict[str, str]:
    """The lines of a failure message.

    Args:
        diff: the failed output; at least one element is wrong.
        limits: error allowed for each element, float64, shape of the output.
        name: what to call the output.
        offset: added to the flat index, when a piece of a larger output is shown.

    Returns:
        Label to text, in order: first, wrong, bound, and why if that is known.
    """
    index = tuple(int(i) for i in np.argwhere(diff.bad)[0])
    shown = tuple(i + offset for i in index)
    at = f"{name}[{', '.join(map(str, shown))}]" if shown else name
    got, expected = diff.got[index], diff.expected[index]
    limit = float(np.broadcast_to(limits, diff.bad.shape)[index])
    said = "never written" if diff.never[index] else number(got, diff.dtype)
    lines = {"first": f"{at} = {said}, expected {number(expected, diff.dtype)}"}
    count, size = int(diff.bad.sum()), diff.bad.size
    if size > 1:
        where = extent(diff.bad) if offset == 0 else ""
        lines["wrong"] = f"{count} of {size} elements" + (f": {where}" if where else "")
    lines["bound"] = _bound(got, expected, limit, diff)
    reason = likely_reason(diff)
    if reason:
        lines["why"] = reason
    return lines


def number(value: np.generic, dtype: str) -> str:
    """A value with as many digits as its format can tell apart."""
    target = format_of(dtype)
    if target is None and not float(value).is_integer():
        return f"{float(value):g}"  # a reference in floating point
    if target is None:
        return str(bool(value)) if dtype == "bool" else str(int(value))
    return f"{float(value):.{int(target.digits * 0.302) + 2}g}"


def layout(lines: Mapping[str, str], width: int = 78) -> str:
    """Labelled lines, aligned and wrapped.

    Args:
        lines: label to text.
        width: columns.

    Returns:
        Text with one label a line, indented by two.
    """
    column = max(map(len, lines)) + 2
    return "\n".join(
        textwrap.fill(
            text,
            width,
            initial_indent="  " + label.ljust(column),
            subsequent_indent=" " * (column + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in lines.items()
    )


def _bound(
    got: np.generic, expected: np.generic, limit: float, diff: Difference
) -> str:
    target = format_of(diff.dtype)
    if target is None:
        return "must be exact" if limit == 0 else f"off by at most {limit:g}"
    if not np.isfinite(expected):
        return "NaN and infinities must be where the reference has them"
    text = f"off by at most {limit:.3g}"
    if np.isfinite(got):
        gap = abs(float(got) - float(expected))
        unit = float(ulp(np.asarray(expected, np.float64), target))
        text += f"; this is off by {gap:.3g}"
        if gap < 1e4 * unit:
            text += f", {gap / unit:.3g} ulp of {diff.dtype}"
    return text
