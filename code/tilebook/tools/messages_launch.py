"""Messages about how a kernel is launched, and what becomes of that."""

import torch
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device, microscope
from tilebook.tools import mistakes
from tilebook.tools.messages import BLOCK, COUNT, Entry, refused


def _outside() -> None:
    tl.load(torch.zeros(1))


def _stray() -> None:
    # On the interpreter everywhere: on a GPU it is silent, or takes the process along.
    x = torch.zeros(50)
    microscope.look(
        mistakes.unmasked_kernel, (1,), x, x, COUNT, BLOCK=BLOCK, raise_error=True
    )


def _tuned_twice() -> None:
    where = device.torch_device()
    x = torch.zeros(BLOCK, device=where)
    mistakes.tuned_kernel[(1,)](x, x, BLOCK, BLOCK=BLOCK)


def _misaligned() -> None:
    TensorDescriptor.from_tensor(torch.zeros(64, 33), [32, 32])


def _on_the_host() -> None:
    x = torch.zeros(BLOCK)
    mistakes.unmasked_kernel[(1,)](x, x, BLOCK, BLOCK=BLOCK)


def _too_much_shared() -> None:
    a, b = (torch.zeros(1024, 1024, device="cuda", dtype=torch.float16) for _ in "ab")
    mistakes.greedy_kernel[(1,)](a, b, 1024, SIDE=256, num_stages=6)


LAUNCH = (
    Entry(
        "outside-a-kernel",
        r"Did you forget to add @triton\.jit \?",
        "A word of `tl` called by Python, mostly because a kernel wasn't decorated.",
        "Decorate it, and launch it with a grid.",
        _outside,
    ),
    refused(
        "fourth-axis",
        mistakes.program_axis_kernel,
        r"program_id axis must be 0, 1, or 2 but got 3",
        "A grid of four axes.",
        "Fold two axes into one; divide and take the rest inside.",
    ),
    refused(
        "assertion",
        mistakes.asserting_kernel,
        r"BLOCK must be whole lines of 128",
        "A `tl.static_assert`, with the words of whoever wrote it.",
        "Do what it says.",
    ),
    refused(
        "odd-warps",
        mistakes.unmasked_kernel,
        r"num_warps must be a power of 2",
        "`num_warps=3`.",
        "1, 2, 4, 8, 16 or 32; only Gluon's specialised warps may be three.",
        num_warps=3,
    ),
    refused(
        "misspelt-keyword",
        mistakes.unmasked_kernel,
        r"Keyword argument \w+ was specified but unrecognised",
        "A keyword that is neither the kernel's nor Triton's. "
        "The interpreter says nothing.",
        "Compare it with the signature, and with options such as `num_warps`.",
        warps=8,
    ),
    refused(
        "missing-argument",
        mistakes.unmasked_kernel,
        r"missing 1 required positional argument: 'BLOCK'",
        "A parameter that the launch leaves out; of an autotuned kernel one that no "
        "configuration sets.",
        "Pass it, by name if it is a constant.",
        BLOCK=None,
    ),
    Entry(
        "tuned-twice",
        r"Conflicting meta-parameters: \w+",
        "A constant that is given at the launch and by the autotuner, too.",
        "Leave it out at the launch.",
        _tuned_twice,
    ),
    Entry(
        "out-of-bounds",
        r"load of x_ptr\[50\], which has 50 elements",
        "An address outside the tensor: in the book's interpreter an error. "
        "On a GPU it is an illegal memory access, or nothing.",
        "The mask; the stride; 64-bit offsets.",
        _stray,
    ),
    Entry(
        "misaligned-descriptor",
        r"strides must be 16-byte aligned",
        "A descriptor of a matrix whose rows aren't a multiple of 16 bytes apart.",
        "Pad the rows, or use pointers; the copy engine can't follow others.",
        _misaligned,
    ),
    Entry(
        "on-the-host",
        r"Pointer argument \(at 0\) cannot be accessed from Triton \(cpu tensor\?\)",
        "A tensor in the host's memory.",
        'Make it with `device="cuda"`.',
        _on_the_host,
        gpu=True,
    ),
    Entry(
        "too-much-shared",
        r"out of resource: shared memory, Required: \d+, Hardware limit: \d+",
        "Tiles times stages that are more than a multiprocessor's shared memory.",
        "Fewer stages, smaller tiles, a narrower type.",
        _too_much_shared,
        gpu=True,
    ),
)
