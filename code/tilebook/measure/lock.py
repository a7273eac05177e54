"""One measurement at a time, whichever process or chapter it belongs to."""

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

_inside = threading.RLock()
_depth = 0


def path() -> Path:
    """The lock file: one for each first GPU, so that any two builds keep clear."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    return Path(tempfile.gettempdir()) / f"tilebook-gpu-{first}.lock"


@contextlib.contextmanager
def gpu_alone() -> Iterator[None]:
    """Hold the GPU: wait for other measurements on it, keep others out.

    Threads of one process queue too, and a holder may enter again. The lock goes with
    the process that holds it, however that ends. A process started inside that asks
    for it too would wait for ever.
    """
    global _depth
    with _inside:
        handle = None if _depth else _open()
        _depth += 1
        try:
            if handle is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            _depth -= 1
            if handle is not None:
                # A child forked meanwhile has the file open too: closing it here would
                # leave the lock with the child.
                fcntl.flock(handle, fcntl.LOCK_UN)
                os.close(handle)


def _open() -> int:
    """Open the lock file, whoever made it: to lock it, reading is enough.

    Closed on exec, so that a child left behind by a measurement doesn't keep the lock.
    """
    try:
        return os.open(path(), os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path(), os.O_RDONLY | os.O_CREAT, 0o644)
