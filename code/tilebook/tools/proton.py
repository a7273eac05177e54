"""What Proton writes, read without its viewer.

    with proton.profiling() as profile:
        softmax(x)
    profile.tree().table(roof)

Proton's file is a tree in JSON, in the form that the library Hatchet reads: nodes with
a frame, metrics and children, and behind the root what is known of each device. Metrics
stand where they were noted, times at kernels, so that a scope's are the sum over what
is below it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tilebook import device
from tilebook.measure import Roof

TIME, COUNT = "time (ns)", "count"
_FLOPS = ("flops", "flops8", "flops16", "flops32", "flops64")
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""What JSON of another form ends with."""
OWN_LAUNCHES = "__proton_launch_metadata"
"""The scope in which a hook's own kernels run, if it launches any."""


@dataclass(frozen=True)
class Node:
    """A scope or a kernel.

    Args:
        name: its frame's.
        metrics: noted at this node itself, by name; numbers.
        children: below it.
    """

    name: str
    metrics: Mapping[str, float]
    children: tuple[Node, ...] = field(repr=False)

    def total(self, metric: str) -> float:
        """Add a metric up over this node and all below it.

        Args:
            metric: its name, such as "time (ns)", "count", "bytes", "flops16".

        Returns:
            The sum; 0 if nobody noted it.
        """
        own = self.metrics.get(metric, 0.0)
        return own + sum(child.total(metric) for child in self.children)

    @property
    def ms(self) -> float:
        """Time on the device of all kernels below, in milliseconds."""
        return self.total(TIME) / 1e6

    @property
    def calls(self) -> int:
        """How often kernels below were launched."""
        return int(self.total(COUNT))

    @property
    def bytes(self) -> float:
        """Traffic that launches declared."""
        return self.total("bytes")

    @property
    def flops(self) -> float:
        """Arithmetic that launches declared, of all widths."""
        return sum(self.total(name) for name in _FLOPS)

    def floor(self, roof: Roof) -> float:
        """The least time that all kernels below could take, one after another.

        Args:
            roof: what the hardware can do.

        Returns:
            Milliseconds; what declares nothing counts as nothing.
        """
        flops = sum(self.metrics.get(name, 0.0) for name in _FLOPS)
        own = roof.floor(self.metrics.get("bytes", 0.0), flops)
        return own + sum(child.floor(roof) for child in self.children)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """Yield this node and all below it, with how deep they are."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def find(self, name: str) -> Node:
        """Find the first node of a name.

        Args:
            name: a scope's or a kernel's.

        Returns:
            The node.

        Raises:
            ValueError: there is none.
        """
        for _, node in self.walk():
            if node.name == name:
                return node
        have = ", ".join(dict.fromkeys(node.name for _, node in self.walk()))
        raise ValueError(f"no scope or kernel {name!r}, only {have}")


@dataclass(frozen=True)
class Profile:
    """A file of Proton's.

    Args:
        root: of the tree.
        devices: what was noted of each, by kind and number, such as "CUDA 0".
    """

    root: Node
    devices: Mapping[str, Mapping[str, Any]]

    def table(self, roof: Roof | None = None) -> pd.DataFrame:
        """Tabulate scopes and kernels, each with all that is below it.

        Args:
            roof: what the hardware can do, for the last two columns.

        Returns:
            Index name, indented by depth; columns calls, ms, share of the time;
            GB/s and TFLOP/s where launches declare bytes and flops; which part of the
            roof was reached, and of a single kernel, which side of it is the limit.
        """
        rows, whole = [], self.root.ms
        for depth, node in self.root.walk():
            row = {
                "name": "\N{EM SPACE}" * depth + node.name,
                "calls": node.calls,
                "ms": node.ms,
                "share": node.ms / whole if whole else 0.0,
            }
            if node.ms and node.bytes:
                row["GB/s"] = node.bytes / node.ms / 1e6
            if node.ms and node.flops:
                row["TFLOP/s"] = node.flops / node.ms / 1e9
            if roof is not None and node.ms and (node.bytes or node.flops):
                row["reached"] = node.floor(roof) / node.ms
                if not node.children:
                    memory = roof.floor(node.bytes) >= roof.floor(0, node.flops)
                    row["limit"] = "memory" if memory else "arithmetic"
            rows.append(row)
        return pd.DataFrame(rows).set_index("name")


def read(path: Path | str) -> Profile:
    """Read a file that Proton wrote with data="tree".

    Args:
        path: of the ".hatchet" file.

    Returns:
        The profile.

    Raises:
        ValueError: the file has another form.
    """
    return parse(Path(path).read_text(encoding="utf-8"))


def parse(text: str) -> Profile:
    """Read the text of such a file.

    Args:
        text: JSON.

    Returns:
        The profile; the hooks' own launches are left out.

    Raises:
        ValueError: the text has another form.
    """
    try:
        first, *rest = json.loads(text)
        root = _node(first)
        devices = {
            f"{kind} {number}": dict(facts.items())
            for kinds in rest
            for kind, numbers in kinds.items()
            for number, facts in numbers.items()
        }
    except _MALFORMED as error:
        raise ValueError(f"this is no tree of Proton's: {error}") from error
    return Profile(root, devices)


def _node(data: Mapping[str, Any]) -> Node:
    children = [
        _node(child)
        for child in data.get("children", ())
        if child["frame"]["name"] != OWN_LAUNCHES
    ]
    # Names of devices are among the metrics.
    numbers = {
        name: float(value)
        for name, value in data["metrics"].items()
        if isinstance(value, int | float)
    }
    return Node(str(data["frame"]["name"]), numbers, tuple(children))


def events(path: Path | str) -> pd.DataFrame:
    """Read a file that Proton wrote with data="trace": a timeline.

    Args:
        path: of the ".chrome_trace" file.

    Returns:
        One row for each thing that took a while: track, name, begin and duration in
        microseconds from the first one's begin, in order of begin. What began and has
        no duration isn't among them.

    Raises:
        ValueError: the file has another form.
    """
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    found = data.get("traceEvents") if isinstance(data, dict) else data
    if not isinstance(found, list):
        raise ValueError("this is no trace of Proton's: it has no traceEvents")
    try:
        rows = [
            (_track(e), str(e["name"]), float(e["ts"]), float(e["dur"]))
            for e in found
            if e.get("ph") == "X" and "dur" in e
        ]
    except _MALFORMED as error:
        raise ValueError(f"this is no trace of Proton's: {error}") from error
    frame = pd.DataFrame(rows, columns=["track", "name", "begin", "duration"])
    frame["begin"] = frame["begin"] - (frame["begin"].min() if len(frame) else 0.0)
    return frame.sort_values("begin", ignore_index=True)


def _track(event: Mapping[str, Any]) -> str:
    return f"{event.get('pid', '')} {event.get('tid', '')}".strip()


class Session:
    """What `profiling` yields; its file is there when the block has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def tree(self) -> Profile:
        """Read what was profiled."""
        return read(self.path)


@contextlib.contextmanager
def profiling(folder: Path | str | None = None) -> Iterator[Session]:
    """Profile what runs inside, each Triton kernel with its launch's metadata.

    Args:
        folder: for the file; a new temporary one by default.

    Yields:
        The session.

    Raises:
        RuntimeError: kernels are interpreted: there is nothing to profile.
    """
    if device.interpreting():
        raise RuntimeError("Proton profiles a GPU, and kernels are interpreted here")
    # Proton's library loads a GPU's driver.
    import torch
    import triton.profiler

    folder = Path(folder or tempfile.mkdtemp(prefix="tilebook-proton-"))
    session = Session(folder / "profile.hatchet")
    number = triton.profiler.start(str(folder / "profile"), hook="triton")
    try:
        yield session
    finally:
        torch.cuda.synchronize()
        triton.profiler.finalize(number)
