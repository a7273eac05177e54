"""Where records are: what this build measured, else what is on record."""

import os
from pathlib import Path

from tilebook import device

from . import schema
from .errors import RecordError
from .record import Record

RECORDS = Path(__file__).resolve().parents[1] / "records"
PREFERRED = ("h100-sxm", "h200-sxm")


def load(name: str, gpu: str | None = None) -> Record:
    """Read a measurement without measuring.

    Args:
        name: the experiment's name.
        gpu: a GPU's short name, for its committed record. By default the live record if
            this build left one and the GPU is here, else that of a preferred GPU.

    Returns:
        The record.

    Raises:
        RecordError: there is none, or its file is damaged.
    """
    live = live_path(name)
    if (
        gpu is None
        and live
        and live.is_file()
        and device.launch_device_type() == "cuda"
    ):
        return read(live, name, live=True)
    recorded = gpus(name)
    if not recorded or gpu not in (None, *recorded):
        where = f"on {gpu}" if gpu else "on any GPU"
        raise RecordError(
            f"{name} has not been recorded {where}; with that GPU, run "
            f"`python -m tilebook.measure --record {name}`"
        )
    slug = gpu or recorded[0]
    return read(RECORDS / slug / f"{name}.json", name, slug=slug)


def read(
    path: Path, name: str, *, slug: str | None = None, live: bool = False
) -> Record:
    """Read one record file.

    Args:
        path: the file.
        name: the experiment it should hold.
        slug: the GPU it should be of, if that is known.
        live: whether this build measured it.

    Returns:
        The record.

    Raises:
        RecordError: the file is damaged or holds something else; it is named.
    """
    data = schema.read(path)
    wanted = {"experiment": (data["experiment"], name)}
    if slug:
        wanted["provenance.slug"] = (data["provenance"]["slug"], slug)
    for field, (got, want) in wanted.items():
        if got != want:
            raise RecordError(f"{path}: {field} is {got!r}, but belongs to {want!r}")
    return Record.of(data, live=live)


def gpus(name: str) -> list[str]:
    """The GPUs that an experiment has a committed record of.

    Args:
        name: the experiment's name.

    Returns:
        Short names, the preferred ones first.
    """
    found = sorted(path.parent.name for path in RECORDS.glob(f"*/{name}.json"))
    return sorted(found, key=lambda s: PREFERRED.index(s) if s in PREFERRED else 99)


def committed() -> list[Path]:
    """Every committed record file, by GPU and experiment."""
    return sorted(RECORDS.glob("*/*.json"))


def stale(name: str) -> list[str]:
    """Name the modules whose code moved on since the record that `load` reads.

    Args:
        name: the experiment's name.

    Returns:
        Sorted names, none if the record is of this code.

    Raises:
        RecordError: there is no record, or its file is damaged.
    """
    return load(name).stale()


def live_path(name: str) -> Path | None:
    """Where a build with a GPU leaves a record: below ``$TILEBOOK_LIVE``, if set.

    Args:
        name: the experiment's name.

    Returns:
        The file, whether or not it exists.
    """
    folder = os.environ.get("TILEBOOK_LIVE")
    return Path(folder) / f"{name}.json" if folder else None
