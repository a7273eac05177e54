"""What all tests share: the device, fixed seeds, and who is left out without a GPU."""

import fcntl
import os
import random
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch

from tilebook import device as here
from tilebook.measure import lock
from tilebook.testing import cards

# Interpreted kernels take milliseconds, so examples are few and have no deadline.
hypothesis.settings.register_profile("tilebook", deadline=None, max_examples=25)
hypothesis.settings.load_profile("tilebook")


def pytest_report_header() -> str:
    return f"kernels run on: {here.describe()}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list) -> None:
    # PyTorch's threads wait for one another busily: a worker's take another's time.
    threads = os.environ.get("OMP_NUM_THREADS") or max(1, os.cpu_count() // len(specs))
    for turn, spec in enumerate(specs):
        spec.env |= cards.share(turn) | {"OMP_NUM_THREADS": f"{threads}"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="run one in N of each test's cases, at least one of each test",
    )


# Before pytest-xdist looks for groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    if (share := config.getoption("--share")) > 1:
        seen: dict[str, int] = {}
        kept, left = [], []
        for item in items:
            test = item.nodeid.partition("[")[0]
            seen[test] = seen.get(test, -1) + 1
            (left if seen[test] % share else kept).append(item)
        config.hook.pytest_deselected(items=left)
        items[:] = kept
    if config.pluginmanager.hasplugin("xdist"):
        _group(items)
    if here.launch_device_type() == "cuda":
        return
    reason = f"needs a GPU and compiled kernels; here: {here.describe()}"
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _group(items: list[pytest.Item]) -> None:
    """Give tests that would wait for one another, or do work twice, to one worker.

    It is pytest-xdist's mode `loadgroup` that heeds this.
    """
    gpu = here.launch_device_type() == "cuda"
    for item in items:
        for name in ("large", "timed") if gpu else ():
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.xdist_group(name))
        # A chapter's experiments, run once for all that is asked of them, and books.
        once = {"built"} if gpu else {"built", "measured"}
        if once & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture
def device() -> torch.device:
    """Where this process's kernels run."""
    return here.torch_device()


@pytest.fixture(scope="session")
def interpreted() -> None:
    """Leave out what runs on a simulated clock where a real one is to be had."""
    if not here.interpreting():
        pytest.skip("simulated where there is no GPU")


@pytest.fixture(autouse=True)
def seeds(request: pytest.FixtureRequest) -> int:
    """Seed every generator from the test's name: the same in any order, on any worker.

    Returns:
        The seed, for a test that wants generators of its own.
    """
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Share the GPU's memory with the other workers: keep none, and queue for much."""
    if here.launch_device_type() != "cuda":
        yield
        return
    # Beside the lock of those who measure: of the same GPU, but another.
    with lock.path().with_suffix(".large").open("a") as file:
        if request.node.get_closest_marker("large"):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        if torch.cuda.memory_reserved() > 2**28:
            # A test that failed keeps its tensors until its report is written.
            torch.cuda.empty_cache()


_BUILD = """
import sys
from sphinx.cmd.build import main
for name in sys.argv[1:]:
    print("status", name, main(["-q", "-n", "-W", "--keep-going", name, name + "/out"]))
"""


@pytest.fixture(scope="session")
def small_books() -> Callable[[Path, str], SimpleNamespace]:
    """Build three small books: with a draft, whole, and broken."""

    def build(folder: Path, page: str) -> SimpleNamespace:
        from bs4 import BeautifulSoup

        names = ["draft", "whole", "broken"]
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, *names],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        pages = {
            name: BeautifulSoup(
                (folder / name / f"out/book/{page}.html").read_bytes(), "html.parser"
            )
            for name in names[:2]
        }
        status = dict(re.findall(r"^status (\w+) (\d+)", done.stdout, re.M))
        said = done.stdout
        return SimpleNamespace(folder=folder, said=said, status=status, pages=pages)

    return build
