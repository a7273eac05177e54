"""What a first call costs, in a process of its own whose caches were empty.

Within a process one call warms another: kernels stay loaded, on disk stay kernels that
were compiled for other shapes, and a remembered way asks for no search. So each
question gets a fresh process and a folder of its own, and then another process in the
same folder, which finds what the first one left.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

import torch

from tilebook import _pulse, device, measure
from tilebook.matmul import public, remembered, shapes
from tilebook.matmul.shapes import Shape

MODULE = "tilebook.matmul.first_call"
TIMEOUT = 300.0
"""Seconds after which a process is given up."""
CALLS = ("first call", "second call")
NEXT = "first call of the next process"
FOLDERS = {
    remembered.FOLDER: "ways",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""What keeps something from one process for the next: variables, and folders' names."""
PROVIDERS = {
    "matmul": measure.Provider(public.matmul, ours=True),
    "torch.compile": measure.compiled(torch.matmul),
}


def in_fresh_processes(
    shape: Shape, layout: str = "NN", provider: str = "matmul"
) -> dict[str, float]:
    """Time calls in bfloat16, their search and compilations included.

    Args:
        shape: of the product.
        layout: one of `shapes.LAYOUTS`.
        provider: one of `PROVIDERS`.

    Returns:
        Seconds of each of `CALLS`, and of `NEXT`. Operands are in place, and another
        kernel has run, so that neither CUDA nor Triton has to be set up.

    Raises:
        RuntimeError: a process failed; with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="tilebook-first-") as folder:
        places = {name: f"{folder}/{inner}" for name, inner in FOLDERS.items()}
        asked = [provider, layout, *map(str, shape)]
        found = _in_process(asked, places)
        found[NEXT] = _in_process(asked, places)[CALLS[0]]
    return found


def _in_process(asked: Sequence[str], places: Mapping[str, str]) -> dict[str, float]:
    # As this process does, whatever the machine would choose by itself.
    mode = {"TRITON_INTERPRET": "1" if device.interpreting() else "0"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", MODULE, *asked],
            env=os.environ | places | mode,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"a first call failed:\n{error.stderr}") from error
    return json.loads(done.stdout.splitlines()[-1])


def here(
    shape: Shape, layout: str = "NN", provider: str = "matmul"
) -> dict[str, float]:
    """Time the calls in this process as it is; see `in_fresh_processes`."""
    a, b = shapes.operands(shape, layout, torch.bfloat16)
    found = PROVIDERS[provider]
    multiply = found.fn or found.build()
    _pulse.run()
    seconds = {}
    for call in CALLS:
        _wait(a)
        began = time.perf_counter()
        multiply(a, b)
        _wait(a)
        seconds[call] = time.perf_counter() - began
    return seconds


def _wait(x: torch.Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def main(arguments: list[str]) -> None:
    """Print the seconds of a shape's calls as JSON.

    Args:
        arguments: the provider, the layout, m, n and k.
    """
    provider, layout, *sides = arguments
    print(json.dumps(here(Shape(*map(int, sides)), layout, provider)))


if __name__ == "__main__":
    main(sys.argv[1:])
