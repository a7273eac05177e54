"""Where a measurement comes from: versions, commit, and what the driver reports."""

import datetime
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import triton

_ROOT = Path(__file__).resolve().parents[3]
_SENSORS = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "power_limit_w": "power.limit",
    "temperature_c": "temperature.gpu",
}

PEERS = {"flag_gems": "flag-gems", "liger": "liger-kernel"}
"""Distributions that are measured beside ours, by the names of their rows."""


def versions() -> dict[str, str | None]:
    """Name the software that measures.

    Returns:
        Versions of CUDA (or ROCm), torch, triton and Python.
    """
    return {
        "cuda": torch.version.cuda or torch.version.hip,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def peers(impls: Iterable[str]) -> dict[str, str]:
    """Name the peers that were measured.

    Args:
        impls: the implementations that a record's rows are about.

    Returns:
        Versions of those of `PEERS` that are among them, by distribution.
    """
    names = sorted({PEERS[impl] for impl in impls if impl in PEERS})
    return {name: metadata.version(name) for name in names}


def today() -> str:
    """Today's date in UTC, as 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit(root: Path = _ROOT) -> tuple[str | None, bool | None]:
    """Name the commit that is measured.

    Args:
        root: a folder of the working tree.

    Returns:
        Its hash, and whether the tree differs from it (committed records aside).
        ``$TILEBOOK_COMMIT``, if it is set, and None: whoever carried the tree to this
        machine says what it is. None twice where neither is known.
    """
    if named := os.environ.get("TILEBOOK_COMMIT"):
        return named, None
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return None, None
    name = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if name is None:
        return None, None
    records = ":(exclude)code/tilebook/records"
    changed = _output("git", "-C", str(root), "status", "--porcelain", ".", records)
    return name, None if changed is None else bool(changed)


def driver(identity: str) -> str | None:
    """The driver's version.

    Args:
        identity: the GPU, as ``nvidia-smi -i`` takes it.

    Returns:
        Such as "580.65.06", or None where nvidia-smi can't tell.
    """
    return _ask(identity, "driver_version")


def sensors(identity: str) -> dict[str, float | None]:
    """Read the GPU's clocks, power limit and temperature; change nothing.

    Args:
        identity: the GPU, as ``nvidia-smi -i`` takes it.

    Returns:
        ``sm_mhz``, ``memory_mhz``, ``power_limit_w``, ``temperature_c``: each None
        where nvidia-smi can't tell.
    """
    found = _ask(identity, ",".join(_SENSORS.values()))
    parts = found.split(",") if found else [""] * len(_SENSORS)
    return {k: _number(x) for k, x in zip(_SENSORS, parts, strict=True)}


def _ask(identity: str, fields: str) -> str | None:
    form = "--format=csv,noheader,nounits"
    return _output("nvidia-smi", f"--query-gpu={fields}", form, "-i", identity)


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints, or None if it isn't there or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
