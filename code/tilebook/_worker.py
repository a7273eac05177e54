"""A helper process that runs Triton in the mode this process is not in.

Triton decides at import whether kernels are compiled or interpreted, so a process can't
do both. One worker per mode is started when it is first needed (some seconds) and kept:
later calls take milliseconds. A call names a function of an importable module and gives
it bytes; what it returns or raises comes back. A worker goes when its parent goes,
however the parent goes, and a worker that dies is replaced by the next call.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from multiprocessing.connection import Connection
from typing import Any, Literal

Mode = Literal["compiled", "interpreted"]

# CUDA_VISIBLE_DEVICES: neither mode needs a GPU, and a worker must never occupy one.
ENVIRONMENT: dict[Mode, dict[str, str]] = {
    "compiled": {"TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""},
    "interpreted": {
        "TRITON_INTERPRET": "1",
        "TILEBOOK_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    },
}
# What the calls of a mode need before anything else: Triton, and seconds to import it.
MODULES: dict[Mode, str] = {
    "compiled": "tilebook.compile_only.binaries",
    "interpreted": "tilebook.microscope.run",
}
BOOTSTRAP = (
    "import json, sys; fd, parent, sys.path[:] = json.loads(sys.argv[1]); "
    "from tilebook._worker import serve; serve(fd, parent)"
)


class WorkerError(RuntimeError):
    """The worker process died or could not start."""


class RemoteTraceback(Exception):
    """Where an exception was raised inside the worker, as text."""

    def __str__(self) -> str:
        return "\n" + self.args[0]


class _Stream:
    """What a worker prints: a file without a name, read on from where we were."""

    def __init__(self) -> None:
        self.fd, path = tempfile.mkstemp(prefix="tilebook-worker-")
        os.unlink(path)
        weakref.finalize(self, os.close, self.fd)
        self.position = 0

    def read(self) -> str:
        # At a position of our own: the worker writes at the descriptor's.
        size = os.fstat(self.fd).st_size - self.position
        text = os.pread(self.fd, size, self.position)
        self.position += size
        return text.decode(errors="replace")


class Worker:
    """A process in one of Triton's modes, started at the first call.

    Args:
        mode: "compiled" (kernels can be compiled for any target) or "interpreted".
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._output: _Stream | None = None
        self._errors: _Stream | None = None
        _every.add(self)

    def call(self, function: str, payload: bytes) -> Any:
        """Run `function(payload)` in the worker.

        Args:
            function: "package.module:name" of a function that takes bytes.
            payload: what it gets.

        Returns:
            What it returned, pickled back.

        Raises:
            WorkerError: the process died; the next call starts another.
            Exception: whatever the function raised, of the same type and message.
        """
        with self._lock:
            connection = self._connection or self._start()
            try:
                connection.send_bytes(pickle.dumps((function, payload)))
                reply = connection.recv_bytes()
            except (EOFError, OSError) as error:
                raise WorkerError(self._epitaph(function)) from error
            except BaseException:
                # An interrupted call would answer the next one.
                self.stop()
                raise
            for stream, written in (
                (sys.stdout, self._output.read()),
                (sys.stderr, self._errors.read()),
            ):
                if written:
                    stream.write(written)
        value, error, where = pickle.loads(reply)
        if error is not None:
            raise thaw(error) from RemoteTraceback(where)
        return value

    def stop(self) -> None:
        """End the process, if there is one; the next call starts another."""
        with self._lock:
            process, connection = self._process, self._connection
            self._process = self._connection = None
            if connection is not None:
                connection.close()
            if process is not None:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int | None:
        """The process's id; None before the first call."""
        return self._process.pid if self._process else None

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        self._output, self._errors = _Stream(), _Stream()
        with theirs:
            argument = json.dumps([theirs.fileno(), os.getpid(), sys.path])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, argument],
                stdin=subprocess.DEVNULL,
                stdout=self._output.fd,
                stderr=self._errors.fd,
                env={**os.environ, **ENVIRONMENT[self.mode]},
                pass_fds=[theirs.fileno()],
            )
        self._connection = Connection(ours.detach())
        return self._connection

    def _epitaph(self, function: str) -> str:
        process = self._process
        self._connection.close()
        self._process = self._connection = None
        try:
            status = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        how = f"with exit status {status}"
        if status < 0:
            with contextlib.suppress(ValueError):
                how = f"by {signal.Signals(-status).name}"
        return (
            f"the process that runs Triton in {self.mode} mode ended {how} during "
            f"{function}; the next call starts another. Its last words:\n"
            + self._errors.read()[-2000:]
        )

    def _forget(self) -> None:
        """In a forked child: drop the parent's worker without touching it."""
        self._lock = threading.RLock()
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            # Popen's destructor would wait for a process that isn't our child.
            self._process.returncode = 0
        self._process = self._connection = None


_every: weakref.WeakSet[Worker] = weakref.WeakSet()
WORKERS: dict[Mode, Worker] = {mode: Worker(mode) for mode in ENVIRONMENT}


def call(mode: Mode, function: str, payload: bytes) -> Any:
    """Run `function(payload)` in this process's worker for `mode`: see Worker.call."""
    return WORKERS[mode].call(function, payload)


def warm(*modes: Mode) -> threading.Thread:
    """Start workers in the background and let them import what calls need.

    Args:
        *modes: which; a call of one that isn't ready yet waits for it.

    Returns:
        The thread that waits for them.
    """

    def start() -> None:
        for mode in modes:
            # Whoever calls later is told what is wrong.
            with contextlib.suppress(WorkerError, ImportError):
                call(mode, "tilebook._worker:prepare", MODULES[mode].encode())

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    return thread


def prepare(module: bytes) -> None:
    """Import a module (worker side)."""
    importlib.import_module(module.decode())


def _stop_all() -> None:
    for worker in list(_every):
        worker.stop()


def _forget_all() -> None:
    for worker in list(_every):
        worker._forget()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_all)


def serve(fd: int, parent: int) -> None:
    """Answer calls until the parent closes the connection or goes (worker side).

    Args:
        fd: this end of the connection.
        parent: the parent's process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides about Ctrl-C
    threading.Thread(target=_leave_with, args=[parent], daemon=True).start()
    connection = Connection(fd)
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return
        connection.send_bytes(_answer(request))


def _leave_with(parent: int) -> None:
    """End this process when its parent has gone without closing the connection.

    A child that the parent forked may hold the connection open for ever.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _answer(request: bytes) -> bytes:
    try:
        name, payload = pickle.loads(request)
        module, _, function = name.partition(":")
        value = getattr(importlib.import_module(module), function)(payload)
        return pickle.dumps((value, None, ""))
    except Exception as error:
        return pickle.dumps((None, freeze(error), traceback.format_exc()))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def freeze(error: Exception) -> bytes:
    """Pickle an exception without calling its constructor when it is loaded.

    An exception's own pickling calls the class with `args`, which fails for classes
    whose constructor takes something else. One that can't be pickled at all becomes a
    RuntimeError that says the same.

    Args:
        error: the exception; cause, context and traceback stay behind.

    Returns:
        Bytes for `thaw`.
    """
    try:
        data = pickle.dumps((type(error), error.args, vars(error)))
        if str(thaw(data)) == str(error):
            return data
    except Exception as reason:
        error.add_note(f"sent as RuntimeError: {reason}")
    text = f"{type(error).__name__}: {error}"
    return pickle.dumps((RuntimeError, (text,), {}))


def thaw(data: bytes) -> Exception:
    """Rebuild an exception that `freeze` pickled."""
    cls, args, attributes = pickle.loads(data)
    error = cls.__new__(cls, *args)
    error.args = args
    vars(error).update(attributes)
    return error
