"""Collect the wheels that a GPU machine without a network lacks.

The names are those that requirements/book.txt and test.txt lead to, less what
requirements/gpu-machine.txt says such a machine has, and those of peers.txt without
what they lead to; the versions are the pins.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
LIMIT_MB = 55
PYTHON = "3.12"
GLIBC = ("1", "2014", "_2_17", "_2_24", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35")
TARGET = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.3",
    "python_version": PYTHON,
    "sys_platform": "linux",
}


def requirements(path: Path) -> list[Requirement]:
    """Read a requirements file.

    Args:
        path: The file; its options and comments are passed over.

    Returns:
        What it asks for, in its order.
    """
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pins(paths: Iterable[Path]) -> dict[str, str]:
    """Read the exact versions that requirements files fix.

    Args:
        paths: The files.

    Returns:
        Version by canonical name.

    Raises:
        ValueError: A line fixes no version.
    """
    versions = {}
    for requirement in (line for path in paths for line in requirements(path)):
        exact = re.fullmatch(r"==([^*,]+)", str(requirement.specifier))
        if exact is None:
            raise ValueError(f"{requirement} fixes no version")
        versions[canonicalize_name(requirement.name)] = exact[1]
    return versions


def closure(
    roots: Iterable[Requirement],
    needs: Callable[[str], Iterable[str] | None],
    *,
    without: Iterable[str] = (),
    environment: Mapping[str, str] = TARGET,
) -> set[str]:
    """Follow requirements to all that they lead to.

    Args:
        roots: Where to start.
        needs: From a canonical name to its ``Requires-Dist`` lines.
        without: Names left out, with all that only they lead to.
        environment: What the markers are evaluated for.

    Returns:
        Canonical names.
    """
    left_out = {canonicalize_name(name) for name in without}
    markers = {**default_environment(), **environment}
    seen: set[tuple[str, str]] = set()
    todo = list(roots)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in left_out:
            continue
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in needs(name) or ():
                wanted = Requirement(line)
                if wanted.marker is None or wanted.marker.evaluate(
                    {**markers, "extra": extra}
                ):
                    todo.append(wanted)
    return {name for name, _ in seen}


def download(names: Mapping[str, str], folder: Path) -> None:
    """Fetch wheels for the GPU machine, whatever this machine is.

    Args:
        names: Version by name.
        folder: Where they go; wheels that lie there are removed.
    """
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    tag = "cp" + PYTHON.replace(".", "")
    abis = [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    platforms = [f"--platform=manylinux{glibc}_x86_64" for glibc in GLIBC]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
        + ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp"]
        + [*abis, *platforms, f"--dest={folder}"]
        + [f"{name}=={version}" for name, version in sorted(names.items())],
        check=True,
    )


def main() -> int:
    """Fill the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder

    files = [REQUIREMENTS / name for name in ("book.txt", "test.txt")]
    fixed = [REQUIREMENTS / name for name in ("tools.txt", "constraints.txt")]
    versions = pins([*files, *fixed])
    there = [line.name for line in requirements(REQUIREMENTS / "gpu-machine.txt")]
    roots = [line for path in files for line in requirements(path)]
    names = closure(roots, metadata.requires, without=there)
    if unpinned := names - versions.keys():
        print(f"constraints.txt lacks {', '.join(sorted(unpinned))}", file=sys.stderr)
        return 1
    peers = pins([REQUIREMENTS / "peers.txt"])
    download({name: versions[name] for name in names} | peers, folder)

    megabytes = sum(wheel.stat().st_size for wheel in folder.glob("*.whl")) / 1e6
    count = len(names | peers.keys())
    print(f"{folder}: {count} wheels for Python {PYTHON}, {megabytes:.0f} MB")
    if megabytes > LIMIT_MB:
        print(f"more than the {LIMIT_MB} MB that can be carried", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
