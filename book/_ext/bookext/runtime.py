"""What runs kernels in a page, put beside the pages where it has been assembled."""

import functools
import io
import json
import shutil
import zipfile
from pathlib import Path

from bookext.machine import package_root

RUNTIME = ".runtime"
MANIFEST = "manifest.json"
ARCHIVE = "tilebook.zip"
# What a page needs of the package, from its root; the rest needs PyTorch. Of the
# microscope it is one module, whose package would bring the others.
PARTS = (
    "__init__.py",
    "browser/*.py",
    "interpreter/*.py",
    "microscope/races.py",
    "puzzles/*.py",
    "testing/*.py",
)
WITHOUT = ("import torch", "from torch")


def folder() -> Path:
    """Return where the runtime is, if there is one: beside the package's sources."""
    return package_root().parents[1] / RUNTIME


def present() -> bool:
    """Whether `make browser-runtime` has left a runtime."""
    return (folder() / MANIFEST).is_file()


def manifest() -> str:
    """Return the list of its files with their hashes."""
    return (folder() / MANIFEST).read_text(encoding="utf-8")


def files() -> list[Path]:
    """Return the package's files that a page needs."""
    root = package_root()
    found = [path for part in PARTS for path in sorted(root.glob(part))]
    return [
        path
        for path in found
        if not any(
            line.startswith(WITHOUT)
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]


@functools.cache
def package() -> bytes:
    """Return these files as an archive, the same bytes each time."""
    root = package_root()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files():
            name = f"tilebook/{path.relative_to(root).as_posix()}"
            data = path.read_bytes()
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def copy(target: Path) -> None:
    """Put everything into a folder of the site."""
    target.mkdir(parents=True)
    for name in json.loads(manifest())["files"]:
        shutil.copy(folder() / name, target / name)
    (target / ARCHIVE).write_bytes(package())
