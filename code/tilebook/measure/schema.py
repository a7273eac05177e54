"""The form of a record file, checked whenever one is read or written."""

import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from .errors import RecordError

PROTOCOL = 1
REGIMES = ("cold", "steady", "host", "other")

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
OPTIONAL_TEXT = (str, type(None))

RECORD = {
    "experiment": str,
    "question": str,
    "rows": list,
    "canary": dict,
    "provenance": dict,
}
ROW = {
    "impl": str,
    "ours": bool,
    "op": str,
    "shape": dict,
    "dtype": str,
    "regime": str,
    "ms": NUMBER,
    "ms_low": NUMBER,
    "ms_high": NUMBER,
    "rounds": list,
    "bytes": OPTIONAL_NUMBER,
    "flops": OPTIONAL_NUMBER,
    "gbps": OPTIONAL_NUMBER,
    "tflops": OPTIONAL_NUMBER,
    "relative_error": OPTIONAL_NUMBER,
    "error_bound": OPTIONAL_NUMBER,
    "extra": dict,
}
CONFIRMED = {
    "date": str,
    "commit": OPTIONAL_TEXT,
    "driver": OPTIONAL_TEXT,
    "digest": dict,
    "rows": int,
    "moved": NUMBER,
}
CANARY = {"open": dict, "close": dict, "drift": NUMBER, "repeats": int}
CEILINGS = {
    "copy_gbps": NUMBER,
    "read_gbps": NUMBER,
    "add_gbps": NUMBER,
    "matmul_tflops": NUMBER,
}
PROVENANCE = {
    "gpu": str,
    "slug": str,
    "l2_bytes": int,
    "driver": OPTIONAL_TEXT,
    "cuda": OPTIONAL_TEXT,
    "torch": str,
    "triton": str,
    "python": str,
    "peers": dict,
    "date": str,
    "commit": OPTIONAL_TEXT,
    "dirty": (bool, type(None)),
    "digest": dict,
    "clocks": dict,
    "power_limit_w": OPTIONAL_NUMBER,
    "temperature_c": OPTIONAL_NUMBER,
    "seed": int,
    "rounds": int,
    "budget_s": NUMBER,
    "seconds": NUMBER,
    "protocol": int,
}


def check(data: Any, source: str) -> None:
    """Refuse what is not a record.

    Args:
        data: what was read from JSON, or is about to be written.
        source: the file, for the message.

    Raises:
        RecordError: naming the file and the first field that is wrong.
    """
    if isinstance(data, dict) and "confirmed" in data:
        _confirmed(data["confirmed"], source)
        data = {k: v for k, v in data.items() if k != "confirmed"}
    _fields(data, RECORD, source, "record")
    if not data["rows"]:
        _refuse(source, "rows", "at least one row", data["rows"])
    for i, row in enumerate(data["rows"]):
        where = f"rows[{i}]"
        _fields(row, ROW, source, where)
        _numbers(row["shape"], source, f"{where}.shape")
        _numbers(row["extra"], source, f"{where}.extra")
        _numbers(dict(enumerate(row["rounds"])), source, f"{where}.rounds")
        if row["regime"] not in REGIMES:
            _refuse(source, f"{where}.regime", f"one of {REGIMES}", row["regime"])
        if not 0 < row["ms_low"] <= row["ms"] <= row["ms_high"]:
            got = [row[k] for k in ("ms_low", "ms", "ms_high")]
            _refuse(source, where, "0 < ms_low <= ms <= ms_high", got)
    _fields(data["canary"], CANARY, source, "canary")
    for when in ("open", "close"):
        _fields(data["canary"][when], CEILINGS, source, f"canary.{when}")
    # Records from before there were peers to name have none.
    made = {"peers": {}} | data["provenance"]
    _fields(made, PROVENANCE, source, "provenance")
    _dated(made, source, "provenance")


def _confirmed(data: Any, source: str) -> None:
    _fields(data, CONFIRMED, source, "confirmed")
    _dated(data, source, "confirmed")
    if data["rows"] < 1 or data["moved"] < 0:
        got = [data["rows"], data["moved"]]
        _refuse(source, "confirmed", "a row or more, and how far it moved", got)


def _dated(data: dict[str, Any], source: str, where: str) -> None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", data["date"]):
        _refuse(source, f"{where}.date", "a date such as 2026-01-31", data["date"])
    digests = data["digest"]
    if not digests or not all(isinstance(x, str) for x in digests.values()):
        _refuse(source, f"{where}.digest", "digests by module", digests)


def read(path: Path) -> dict[str, Any]:
    """Read and check a record file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        RecordError: it is missing, truncated or not of this form; it is named.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(f"{path}: damaged, not JSON: {error}") from error
    check(data, str(path))
    return data


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a record file whole or not at all, one row to a line.

    Args:
        path: the file; folders are made as needed.
        data: a record.

    Raises:
        RecordError: the data is not a record; nothing is written.
    """
    check(data, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_text(data))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _text(data: dict[str, Any]) -> str:
    rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in data["rows"])
    rest = {k: v for k, v in data.items() if k != "rows"} | {"rows": []}
    text = json.dumps(rest, indent=1, allow_nan=False)
    return (
        text.replace('"rows": []', f'"rows": [\n  {rows}\n ]' if rows else '"rows": []')
        + "\n"
    )


def _fields(data: Any, fields: dict[str, Any], source: str, where: str) -> None:
    if not isinstance(data, dict):
        _refuse(source, where, "an object", data)
    for name in sorted(fields.keys() ^ data.keys()):
        have = "is missing" if name in fields else "is not part of a record"
        raise RecordError(f"{source}: {where}.{name} {have}")
    for name, kinds in fields.items():
        value = data[name]
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(
            value, kinds
        ):
            names = " or ".join(
                "null" if k is type(None) else k.__name__ for k in kinds
            )
            _refuse(source, f"{where}.{name}", names, value)
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(source, f"{where}.{name}", "a finite number", value)


def _numbers(data: dict[Any, Any], source: str, where: str) -> None:
    for name, value in data.items():
        number = isinstance(value, NUMBER) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            _refuse(source, f"{where}[{name}]", "a finite number", value)


def _refuse(source: str, where: str, wanted: str, got: Any) -> None:
    raise RecordError(f"{source}: {where}: expected {wanted}, got {got!r:.80}")
