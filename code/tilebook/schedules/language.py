"""Gluon's operations on a `Machine`: as much of them as the book's kernels use."""

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton.experimental.gluon.language as gl
from triton.experimental.gluon.language.nvidia import hopper

from tilebook.schedules.descriptors import Descriptor
from tilebook.schedules.machine import Job, ScheduleError, here
from tilebook.schedules.memory import Barrier, Barriers, Memory, Named
from tilebook.schedules.tiles import DTYPES, Pointer, Tile


class Accumulator:
    """What products are added to, and may still be.

    Args:
        value: the sums; those of products that haven't been done are not in it.
    """

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value
        self.last: Job | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ScheduleError(
            f"sums are read ({name}) before their products were waited for"
        )


def program_id(axis: int) -> int:
    """The program's index."""
    return here().program if axis == 0 else 0


def num_programs(axis: int) -> int:
    """How many there are."""
    return here().programs if axis == 0 else 1


def allocate_shared_memory(
    element_ty: gl.dtype, shape: Sequence[int], layout: Any
) -> Memory | Barriers:
    """Make room, full of what nobody wrote; barriers where the layout says so."""
    if isinstance(layout, hopper.mbarrier.MBarrierLayout):
        return Barriers(shape[0])
    found = Memory(torch.empty(*shape, dtype=DTYPES[element_ty]), element_ty)
    found.poison()
    return found


def warp_specialize(
    functions_and_args: Sequence[tuple[Callable[..., Any], Sequence[Any]]],
    worker_num_warps: Any,
    worker_num_regs: Any = None,
) -> None:
    """Run partitions side by side; of several of a function, count from 0."""
    names = [function.__name__ for function, _ in functions_and_args]
    many, seen = Counter(names), Counter()
    bodies = []
    for name, (function, args) in zip(names, functions_and_args, strict=True):
        label = f"{name} {seen[name]}" if many[name] > 1 else name
        seen[name] += 1
        bodies.append((label, functools.partial(function, *args)))
        for parameter, value in zip(function.__code__.co_varnames, args, strict=False):
            if isinstance(value, Named):
                value.call(parameter)
    here().run(bodies)


def init(mbarrier: Barrier, count: int) -> None:
    """Begin the first phase."""
    mbarrier.init(count)


def expect(mbarrier: Barrier, bytes_per_cta: int, pred: bool = True) -> None:
    """Make the phase wait for bytes, too, and arrive."""
    if pred:
        here().say("expect", mbarrier.ready().name)
        mbarrier.come(-bytes_per_cta)
        mbarrier.arrive()
        here().pause()


def arrive(mbarrier: Barrier, *, count: int = 1, pred: bool = True) -> None:
    """Arrive."""
    if pred:
        here().say("arrive", mbarrier.ready().name)
        mbarrier.arrive(count)
        here().pause()


def wait(mbarrier: Barrier, phase: int, pred: bool = True, deps: Any = ()) -> None:
    """Go on while a phase of this parity is the last that is over."""
    if not pred:
        return
    machine, parity = here(), int(phase) & 1
    machine.say("wait", mbarrier.ready().name)

    def why() -> str:
        return f"{mbarrier.name}, phase {parity} ({mbarrier.state()})"

    machine.pause(lambda: mbarrier.passed(parity), why)
    machine.say("pass", mbarrier.name)


def async_load(
    tensor_desc: Descriptor,
    coord: Sequence[int],
    barrier: Barrier,
    result: Memory,
    pred: bool = True,
) -> None:
    """Copy a tile into shared memory, some time."""
    if not pred:
        return
    result.christen()
    machine = here()
    machine.say("load", result.name)
    barrier.ready()
    block = tensor_desc.block_type
    result.check(block.shape, tensor_desc.dtype)
    result.seen_by_engines()
    # From now on nobody knows what is there.
    result.poison()
    there, inside = tensor_desc.window(coord)

    def finish() -> None:
        result.data.zero_()
        result.data[inside] = tensor_desc.base[there]
        machine.say("loaded", result.name, "copy engine")
        machine.say("bytes", barrier.name, "copy engine")
        barrier.come(block.nbytes)

    machine.begin(Job("load", result.name, finish))
    machine.pause()


def async_store(tensor_desc: Descriptor, coord: Sequence[int], src: Memory) -> None:
    """Copy a tile from shared memory, some time, and then on to the matrix."""
    _send(tensor_desc, coord, src, "store", tensor_desc.put)


def async_add(tensor_desc: Descriptor, coord: Sequence[int], src: Memory) -> None:
    """Copy a tile from shared memory, some time, and then add it to the matrix."""
    _send(tensor_desc, coord, src, "add", tensor_desc.add)


def _send(
    tensor_desc: Descriptor,
    coord: Sequence[int],
    src: Memory,
    what: str,
    end: Callable[[Sequence[int], torch.Tensor], None],
) -> None:
    src.christen()
    machine, worker = here(), here().current
    machine.say(what, src.name)
    src.check(tensor_desc.block_type.shape, tensor_desc.dtype)
    src.seen_by_engines()

    def take() -> None:
        taken = src.data.clone()
        machine.say("taken", src.name, "copy engine")

        def put() -> None:
            end(coord, taken)
            machine.say("stored", src.name, "copy engine")

        # Nobody can wait for this but by the program's end.
        machine.begin(Job("store", src.name, put, owed=False))

    worker.stores.append(machine.begin(Job("store", src.name, take)))
    machine.pause()


def async_copy(smem: Memory, pointer: Pointer, mask: Any = None, **_: Any) -> None:
    """Copy what pointers point to into shared memory past registers, some time; zeros
    where the mask is off."""
    smem.christen()
    machine, worker = here(), here().current
    machine.say("copy", smem.name)
    smem.poison()
    found = pointer.read(mask, 0)

    def finish() -> None:
        smem.check(found.shape, smem.dtype)
        smem.data.copy_(found.value)
        machine.say("copied", smem.name, worker.name)

    worker.copied = machine.begin(Job("copy", smem.name, finish, worker.copied))
    machine.pause()


def copies_arrive(mbarrier: Barrier, increment_count: bool = True) -> None:
    """Arrive once the caller's copies have been made: an arrival more than the phase
    would have, unless it counts on it."""
    machine, worker = here(), here().current
    machine.say("promise", mbarrier.ready().name)
    if increment_count:
        mbarrier.more()

    def finish() -> None:
        machine.say("kept", mbarrier.name, worker.name)
        mbarrier.arrive()

    worker.copied = machine.begin(Job("copy", mbarrier.name, finish, worker.copied))
    machine.pause()


def store_wait(pendings: int) -> None:
    """Go on once all but the caller's last stores have been taken."""
    worker = here().current
    worker.stores = _settle(worker.stores, pendings, "its stores")


def _settle(jobs: list[Job], pending: int, what: str) -> list[Job]:
    """Wait for all but the last; those are what may still be in flight."""
    before, kept = jobs[: len(jobs) - pending], jobs[max(len(jobs) - pending, 0) :]
    here().pause(lambda: all(job.over for job in before), lambda: what)
    return kept


def seen_as(memory: Memory, dtype: gl.dtype, shape: Sequence[int], _: Any) -> Memory:
    """View shared memory as a tile of another type."""
    return memory.seen_as(dtype, shape)


def fence_async_shared(cluster: bool = False) -> None:
    """Let engines see what the caller wrote."""
    machine = here()
    machine.unfenced = [
        (writer, memory)
        for writer, memory in machine.unfenced
        if writer is not machine.current
    ]


def warpgroup_mma_init(value: Tile | Accumulator) -> Accumulator:
    """Take a tile as sums."""
    return value if isinstance(value, Accumulator) else Accumulator(value.value)


def warpgroup_mma(
    a: Memory | Tile,
    b: Memory,
    acc: Tile | Accumulator,
    *,
    use_acc: Any = True,
    precision: Any = None,
    max_num_imprecise_acc: Any = None,
    is_async: bool = False,
) -> Tile | Accumulator:
    """Add the product of two tiles in shared memory, some time; the first may be in
    registers, which nobody else can write."""
    machine, worker = here(), here().current
    if isinstance(a, Accumulator):
        raise ScheduleError(
            "a product reads sums before their products were waited for"
        )
    held = isinstance(a, Tile)
    what = f"registers, {b.name}" if held else f"{a.name}, {b.name}"
    machine.say("multiply", what)
    if not held:
        a.seen_by_engines()
    b.seen_by_engines()
    acc, adds = warpgroup_mma_init(acc), bool(use_acc)
    if [*acc.value.shape] != [a.shape[0], b.shape[1]] or a.shape[1] != b.shape[0]:
        sides = f"{a.shape} and {b.shape} for {[*acc.value.shape]}"
        raise ScheduleError(f"{what}: the sides don't meet, {sides}")

    def finish() -> None:
        first = a.value if held else a.data
        product = first.to(acc.value.dtype) @ b.data.to(acc.value.dtype)
        acc.value = acc.value + product if adds else product
        machine.say("multiplied", what, "tensor cores")

    # Only products with the same sums are done in order.
    acc.last = machine.begin(Job("product", what, finish, acc.last))
    worker.products.append(acc.last)
    machine.pause()
    return acc if is_async else warpgroup_mma_wait(0, [acc])


def warpgroup_mma_wait(num_outstanding: int = 0, deps: Sequence[Any] = ()) -> Any:
    """Go on once all but the caller's last products are done."""
    if not deps:
        raise ValueError("warpgroup_mma_wait deps must be given")
    worker = here().current
    worker.products = _settle(worker.products, num_outstanding, "its products")
    # Sums may be read only where the wait says so, whatever luck has done already.
    found = tuple(
        x if isinstance(x, Tile) or x.last in worker.products else Tile(x.value)
        for x in deps
    )
    return found[0] if len(found) == 1 else found


def inline_asm_elementwise(
    asm: str, constraints: str, args: Sequence[Any], **_: Any
) -> Any:
    """What moves registers, or marks itself as reading some, and nothing else."""
    moves = ("mov.b32 $0, $1;", "mov.b32 $0, $4;")
    if asm not in moves and not asm.startswith("/* read */"):
        raise NotImplementedError(f"inline assembly {asm!r} is not modelled")
    return args[0]


def split(a: Tile) -> tuple[Tile, ...]:
    """Take the last dimension, of two, apart."""
    return tuple(Tile(part) for part in a.value.unbind(-1))


def join(a: Tile, b: Tile) -> Tile:
    """Put two tiles together along a new last dimension."""
    if a.shape != b.shape:
        raise ValueError(f"tiles of {a.shape} and {b.shape} don't go together")
    return Tile(torch.stack((a.value, b.value), -1))


def arange(start: int, end: int, layout: Any = None) -> Tile:
    """A vector of integers that follow one another."""
    return Tile(torch.arange(start, end))


def expand_dims(input: Tile, axis: int) -> Tile:
    """Give a tile a dimension of one element."""
    return Tile(input.value.unsqueeze(axis))


def load(pointer: Pointer, mask: Any = None, other: Any = 0) -> Any:
    """Read global memory, which no engine writes meanwhile."""
    return pointer.read(mask, other)


def zeros(shape: Sequence[int], dtype: gl.dtype, layout: Any = None) -> Tile:
    """A tile of zeros."""
    return Tile(torch.zeros(*shape, dtype=DTYPES[dtype]))


def cdiv(x: int, div: int) -> int:
    """Divide, and round up."""
    return -(-x // div)
