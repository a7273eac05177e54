"""What Triton keeps of a kernel, and what it tells kernels apart by."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import triton

from tilebook import _ship, _worker
from tilebook.compile_only import binaries, target_of

MEANING = {
    "source": "the front end's module, before any pass",
    "ttir": "tiles without layouts",
    "ttgir": "tiles with layouts",
    "llir": "one thread's program",
    "ptx": "NVIDIA's virtual assembly",
    "cubin": "machine code, loaded by the driver",
    "amdgcn": "AMD's assembly",
    "hsaco": "machine code, loaded by the driver",
    "json": "metadata: what a launch has to know",
    "log": "what ptxas said, kept by compile_only",
}
"""By a file's last name."""


class Kept(NamedTuple):
    """A compiled kernel's files."""

    folder: str
    """Name of the folder: a hash of all that the result hangs on."""
    sizes: dict[str, int]
    """Bytes by file."""
    metadata: dict[str, Any]
    """What the kernel's own JSON file says."""
    group: dict[str, Any]
    """What the group's JSON file says: which files belong together."""

    def table(self) -> pd.DataFrame:
        """List the files: size and meaning."""
        rows = {
            name: {"bytes": size, "is": MEANING.get(_ending(name), "")}
            for name, size in sorted(self.sizes.items())
        }
        for name in rows:
            if name.startswith("__grp__"):
                rows[name]["is"] = "which files belong together"
        return pd.DataFrame.from_dict(rows, orient="index")


def _ending(name: str) -> str:
    return name.rpartition(".")[2]


def dissect(kernel: Any, *args: Any, target: str = "sm_90", **meta: Any) -> Kept:
    """Compile a kernel into an empty cache, and look at what lies there.

    Args:
        kernel: decorated with @triton.jit.
        args: as for `compile_only.compile`.
        target: as for `compile_only.compile`.
        meta: constexprs and options.

    Returns:
        Its folder; there are others, for what the driver's side of Triton needs.
    """
    gpu = target_of(target)
    kernel, meta = _ship.unwrap(kernel, args, meta)
    request = _ship.dumps((kernel, args, meta, (gpu.backend, gpu.arch, gpu.warp_size)))
    return Kept(
        *_worker.call("compiled", "tilebook.compiler.cache:dissect_request", request)
    )


def dissect_request(request: bytes) -> tuple[str, dict[str, int], dict, dict]:
    """Compile into an empty cache; runs in the worker.

    Args:
        request: kernel, arguments, options and target, packed by `_ship.dumps`.

    Returns:
        The fields of `Kept`.
    """
    with tempfile.TemporaryDirectory() as empty, triton.knobs.cache.scope():
        triton.knobs.cache.dir = empty
        _, metadata = binaries.compile_request(request)
        name = metadata["name"]
        (folder,) = (path.parent for path in Path(empty).glob(f"*/{name}.json"))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        own = json.loads((folder / f"{name}.json").read_text())
        group = json.loads((folder / f"__grp__{name}.json").read_text())
        paths = {name: Path(path).name for name, path in group["child_paths"].items()}
    return folder.name, sizes, own, paths
