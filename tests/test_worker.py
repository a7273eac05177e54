"""The helper process: answers, errors, deaths, forks and what it leaves behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tilebook import _worker
from tilebook._worker import Worker, WorkerError, freeze, thaw

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def worker():
    worker = Worker("compiled")
    yield worker
    worker.stop()


class Demanding(ValueError):
    """Its pickle can't be loaded: that would call it with `args`."""

    def __init__(self, *, element: int) -> None:
        self.element = element
        super().__init__(f"element {element}")


def gone(pid: int, within: float = 15.0) -> bool:
    """Whether a process ends (a zombie has) before the time is up."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_call_answers_in_another_process_and_keeps_it(worker):
    mine = worker.call("os:fsdecode", b"hello")
    first = worker.pid
    assert mine == "hello"
    start = time.perf_counter()
    for _ in range(20):
        worker.call("os:fsdecode", b"x")
    assert worker.pid == first != os.getpid()
    assert (time.perf_counter() - start) / 20 < 0.05


def test_a_warm_worker_has_imported_what_calls_need():
    _worker.warm(*_worker.MODULES).join(timeout=120)
    for mode, module in _worker.MODULES.items():
        known = f"{module!r} in __import__('sys').modules".encode()
        assert _worker.call(mode, "builtins:eval", known) is True


def test_to_warm_what_cannot_start_harms_nobody(monkeypatch):
    monkeypatch.setitem(_worker.MODULES, "compiled", "tilebook.nothing")
    _worker.warm("compiled").join(timeout=120)
    assert _worker.call("compiled", "os:fsdecode", b"alive") == "alive"


def test_each_mode_decorates_for_itself():
    code = b"__import__('tilebook').interpreter.switched_on()"
    assert _worker.call("compiled", "builtins:eval", code) is False
    assert _worker.call("interpreted", "builtins:eval", code) is True


def test_what_is_printed_there_appears_here(worker, capfd):
    worker.call("builtins:exec", b"print('out'); import os; os.system('echo err >&2')")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out\n", "err\n")
    worker.call("os:fsdecode", b"")
    assert capfd.readouterr() == ("", "")


def test_an_exception_comes_back_as_it_was(worker):
    with pytest.raises(ZeroDivisionError, match=r"^division by zero$") as caught:
        worker.call("builtins:eval", b"1 / 0")
    assert "_answer" in str(caught.value.__cause__)


def test_an_exception_with_a_demanding_constructor_survives():
    error = thaw(freeze(Demanding(element=7)))
    assert type(error) is Demanding
    assert (str(error), error.element) == ("element 7", 7)


def test_an_exception_that_cannot_travel_says_what_it_was():
    class Local(KeyError):
        pass

    error = thaw(freeze(Local("why")))
    assert type(error) is RuntimeError
    assert str(error) == "Local: 'why'"


def test_an_answer_that_cannot_travel_is_an_error(worker):
    with pytest.raises(TypeError, match="pickle"):
        worker.call("builtins:eval", b"__import__('threading').Lock()")
    assert worker.call("os:fsdecode", b"next") == "next"


def test_a_death_is_reported_with_its_last_words_and_mended(worker):
    script = (
        b"import os, sys; sys.stderr.write('assertion'); sys.stderr.flush(); os.abort()"
    )
    with pytest.raises(WorkerError, match=r"(?s)by SIGABRT.*another.*assertion"):
        worker.call("builtins:exec", script)
    assert worker.call("os:fsdecode", b"alive") == "alive"


def test_a_worker_killed_between_calls_is_reported_and_mended(worker):
    worker.call("os:fsdecode", b"")
    os.kill(worker.pid, signal.SIGKILL)
    assert gone(worker.pid)
    with pytest.raises(WorkerError, match="SIGKILL"):
        worker.call("os:fsdecode", b"")
    assert worker.call("os:fsdecode", b"alive") == "alive"


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setenv("TILEBOOK_DEVICE", "toaster")
    worker = Worker("compiled")
    with pytest.raises(WorkerError, match=r"(?s)exit status 1.*toaster"):
        worker.call("os:fsdecode", b"")
    assert worker.pid is None


def test_an_interrupted_call_does_not_answer_the_next(worker, request, monkeypatch):
    worker.call("os:fsdecode", b"")
    old = worker.pid
    # A shell that starts a job in the background lets it ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        worker.call("builtins:exec", b"import time; time.sleep(30)")
    assert gone(old)
    assert worker.call("os:fsdecode", b"next") == "next"


def test_threads_share_a_worker_without_mixing_answers(worker):
    answers: dict[int, list[str]] = {}

    def ask(i: int) -> None:
        answers[i] = [worker.call("os:fsdecode", b"%d" % i) for _ in range(25)]

    threads = [threading.Thread(target=ask, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: [str(i)] * 25 for i in range(4)}


def test_a_forked_child_starts_its_own_and_leaves_ours_alone(worker):
    ours = worker.call("builtins:eval", b"__import__('os').getpid()")
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            theirs = worker.call("builtins:eval", b"__import__('os').getpid()")
            os.write(write, b"%d" % theirs)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    theirs = int(os.read(read, 64))
    os.close(read)
    assert theirs != ours
    assert gone(theirs)
    assert worker.call("builtins:eval", b"__import__('os').getpid()") == ours


EXITS = {
    "normally": "sys.exit(0)",
    "by an exception": "raise RuntimeError('over')",
    "at once": "os._exit(3)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "leaving a forked child": "os.fork() or time.sleep(20); os._exit(0)",
}


@pytest.mark.parametrize("how", EXITS)
def test_no_orphan_and_no_file_stays_behind(how, tmp_path):
    script = f"""
        import os, signal, sys, time
        from tilebook import _worker
        pid = _worker.call("compiled", "builtins:eval", b"__import__('os').getpid()")
        print(pid, flush=True)
        {EXITS[how]}
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    pid = int(process.stdout.readline())
    try:
        process.wait(timeout=30)
        assert gone(pid)
        assert list(tmp_path.iterdir()) == []
    finally:
        process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
