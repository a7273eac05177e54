"""Which kernel multiplies, and how: asked once, measured, remembered.

The question leaves out what hardly matters, so that a new shape is seldom a new
question: sizes count by their three leading binary digits, strides by their order and
by what divides them.
"""

import contextlib
import contextvars
import functools
import threading
from collections.abc import Iterator
from typing import Any

import torch
import triton

from tilebook import device, library
from tilebook.matmul import descriptors, operands, racing, remembered, ways
from tilebook.matmul.operands import Task
from tilebook.matmul.ways import Way
from tilebook.measure import digest
from tilebook.measure.timing import here

DIGITS = 3
"""Leading binary digits by which a size counts."""

# Of a thread, or of a task: what one of them forbids, others may still do.
_searching = contextvars.ContextVar("searching", default=True)
_aside: contextvars.ContextVar[dict[str, remembered.Memory] | None] = (
    contextvars.ContextVar("aside", default=None)
)
_ahead = contextvars.ContextVar("ahead", default=False)
_one_at_a_time = threading.Lock()


def rounded(size: int) -> int:
    """A size by its three leading binary digits, rounded up.

    Args:
        size: at least 0.

    Returns:
        The least number of three digits and zeros that isn't below it: 1000 is 1024,
        1025 is 1280.
    """
    drop = max(0, int(size).bit_length() - DIGITS)
    return -(-int(size) >> drop) << drop


def question(task: Task) -> str:
    """What decides which way is the fastest, as text.

    Args:
        task: the product.
    """
    sizes = "x".join(str(rounded(x)) for x in (task.m, task.n, task.k))
    layouts = [_layout(x) for x in (task.a, task.b, task.out)]
    ends = [
        f"scale {task.scale != 1.0}",
        f"bias {task.bias is not None}",
        f"activation {task.activation}",
        f"residual {'' if task.residual is None else _layout(task.residual)}",
    ]
    dtypes = [str(x.dtype).removeprefix("torch.") for x in (task.a, task.out)]
    return ", ".join([sizes, *dtypes, task.precision, *layouts, *ends])


def _layout(x: torch.Tensor) -> str:
    """Which stride is 1, and what divides the strides and the start."""
    rows, columns = operands.divisor(x)
    unit = "n" if x.stride(1) == 1 else "t" if x.stride(0) == 1 else "s"
    start = 16 if x.is_meta or x.data_ptr() % 16 == 0 else x.itemsize
    # Whatever divides the stride of a single element, a descriptor looks at it.
    placed = descriptors.unfit(x) is None, descriptors.unfit(x.t()) is None
    return f"{unit}{rows}/{columns}@{start}" + "".join("-d"[each] for each in placed)


@contextlib.contextmanager
def off() -> Iterator[None]:
    """For as long as the context lasts, nothing is measured in it: what is known is
    used, else what the rule says. Other threads go on as they did."""
    before = _searching.set(False)
    try:
        yield
    finally:
        _searching.reset(before)


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """For as long as the context lasts, nothing is known in it at its beginning, and
    nothing that is found out outlives it. Other threads go on as they did."""
    empty = {name: remembered.Memory(name, "aside", kept=False) for name in ways.FIELDS}
    before = _aside.set(empty)
    try:
        yield
    finally:
        _aside.reset(before)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """For as long as the context lasts, a new question compiles what could race for it,
    times nothing and is answered by the rule: Triton's cache is full afterwards."""
    before = _ahead.set(True)
    try:
        yield
    finally:
        _ahead.reset(before)


def may_search(task: Task) -> bool:
    """Whether a measurement is possible and allowed here and now.

    Args:
        task: the product.
    """
    if not _searching.get() or not task.a.is_cuda or device.interpreting():
        return False
    if torch.compiler.is_compiling():
        return False
    if type(task.a) not in (torch.Tensor, torch.nn.Parameter):
        return False
    # To wait, as timing does, would break a recording off.
    return not torch.cuda.is_current_stream_capturing()


@functools.cache
def _memory(field: str = "matmul") -> remembered.Memory:
    found = device.current()
    code = digest.of_modules([f"{field}.ways"])
    parts = [found.name, found.driver, triton.__version__, torch.__version__]
    parts.append(str(sorted(code.items())))
    return remembered.Memory(field, "; ".join(map(str, parts)))


def memory(field: str = "matmul") -> remembered.Memory:
    """The choices made on this GPU with these versions of Triton and of the kernels.

    Args:
        field: one of `ways.FIELDS`.
    """
    aside = _aside.get()
    return _memory(field) if aside is None else aside[field]


def search(task: Task, clock: Any = None, field: str = "matmul") -> racing.Outcome[Way]:
    """Time the ways that the estimate puts in front.

    Args:
        task: the product; nothing of it is written to.
        clock: what times; this process's GPU by default.
        field: one of `ways.FIELDS`.

    Returns:
        What each took, the fastest first; nothing if all of them failed.
    """
    # The result may be an operand, too; and no launch here belongs to an operator.
    aside = task._replace(out=torch.empty_like(task.out), wrap=operands.itself)
    compiled = aside._replace(wrap=operands.compiled)
    entrants = ways.entrants(task, field)
    calls, prepare = (
        {way: functools.partial(ways.launch, each, way, field) for way in entrants}
        for each in (aside, compiled)
    )
    stream = torch.cuda.current_stream() if task.a.is_cuda else None

    @contextlib.contextmanager
    def there() -> Iterator[None]:
        with library.on(task.a), torch.cuda.stream(stream):
            yield

    return racing.race(calls, clock or here(), prepare=prepare, here=there)


def way_for(task: Task, field: str = "matmul") -> Way | None:
    """The remembered way, or the fastest of a search, which is remembered.

    Args:
        task: the product, with elements and terms.
        field: one of `ways.FIELDS`.

    Returns:
        The way; None where nothing is known and nothing can be measured, or where all
        that was tried failed. What a race without all its ways decided holds for this
        process alone.
    """
    if _ahead.get():
        _compile(task, field)
        return None
    choices = memory(field)
    key = exactly(task)
    found = choices.at_hand.get(key, _UNKNOWN)
    if found is not _UNKNOWN:
        return found
    asked = question(task)
    found = ways.read(choices.get(asked), field)
    if found is None:
        if not may_search(task):
            return None
        # Who waited may find the answer.
        with _one_at_a_time:
            found = ways.read(choices.get(asked), field) or _raced(
                task, asked, choices, field
            )
    choices.keep_at_hand(key, found)
    return found


_UNKNOWN: Any = object()


def _compile(task: Task, field: str) -> None:
    compiled = task._replace(wrap=operands.compiled)
    for way in ways.entrants(compiled, field):
        # Who can't be compiled won't race.
        with contextlib.suppress(Exception):
            ways.launch(compiled, way, field)


def _raced(
    task: Task, asked: str, choices: remembered.Memory, field: str
) -> Way | None:
    """The winner of a search, remembered; None if there is none."""
    try:
        ended = search(task, field=field)
    except torch.cuda.OutOfMemoryError:
        # There is room for the product, and for no second result beside it.
        return None
    found = next(iter(ended.ms), None)
    if found is not None:
        # Another process finds compiled what came late to this race.
        answer = [found.kernel, list(found.config)]
        choices.put(asked, answer, kept=not ended.late)
    return found


def exactly(task: Task) -> tuple[Any, ...]:
    """All that `question` depends on, as it is: more questions, sooner asked.

    Args:
        task: the product.
    """
    a, b, out, residual = task.a, task.b, task.out, task.residual
    return (
        *(a.shape, a.stride(), a.data_ptr() % 16, b.shape, b.stride()),
        *(b.data_ptr() % 16, out.stride(), out.data_ptr() % 16, a.dtype, out.dtype),
        *(task.precision, task.scale == 1.0, task.bias is None, task.activation),
        residual if residual is None else (residual.stride(), residual.data_ptr() % 16),
    )
