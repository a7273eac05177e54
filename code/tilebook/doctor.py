"""What runs on this machine, what doesn't, and why.

`python -m tilebook.doctor` prints it, `--json` for programs. The exit status is 1 if
something is broken that should work here, else 0; no GPU is no fault.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tilebook import interpreter

__all__ = ["Finding", "examine", "main"]

# The releases the tests run on: at least the first, below the second.
SUPPORTED = {
    "python": ((3, 11), (4,)),
    "torch": ((2, 8), (3,)),
    "triton": ((3, 6), (4,)),
    "numpy": ((1, 26), (3,)),
}
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "TILEBOOK_DEVICE",
    "TILEBOOK_LIVE",
    "TRITON_CACHE_DIR",
    "TRITON_DEBUG",
)
_STATES = {
    "ok": "[green]yes[/]",
    "no": "[yellow]no[/]",
    "broken": "[bold red]BROKEN[/]",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        section: the heading it stands under.
        name: what was looked at.
        state: "ok", "no" (not to be had here, which is no fault) or "broken".
        detail: the version, the reason, or what to do.
    """

    section: str
    name: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Look at everything; takes a few seconds, and the GPU if there is one.

    Returns:
        The findings, in the order to show them.
    """
    return [
        finding
        for look in (_versions, _mode, _features, _abilities, _records)
        for finding in _guarded(look)
    ]


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run one examination; a patient too ill for it is a finding, not a crash."""
    try:
        yield from look()
    except Exception as error:
        title = look.__name__.strip("_").capitalize()
        yield Finding(title, "examination", "broken", _say(error))


def _versions() -> Iterator[Finding]:
    for name, (low, high) in SUPPORTED.items():
        if name == "python":
            version = platform.python_version()
        else:
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                yield Finding("Versions", name, "broken", "not installed")
                continue
        wanted = f">={_dotted(low)},<{_dotted(high)}"
        fits = low <= _numbers(version) < high
        detail = version if fits else f"{version} is outside {wanted}"
        yield Finding("Versions", name, "ok" if fits else "broken", detail)
    yield Finding("Versions", "system", "ok", platform.platform())


def _mode() -> Iterator[Finding]:
    from tilebook import device

    yield Finding("Mode", "kernels run on", "ok", device.describe())
    for name in _VARIABLES:
        if name in os.environ:
            yield Finding("Mode", name, "ok", os.environ[name])
    if device.available():
        here = device.current()
        if here.driver:
            yield Finding("Mode", "driver", "ok", here.driver)
        if here.backend in ("cuda", "hip"):
            slug = here.slug if here.datasheet else f"{here.slug} (no datasheet known)"
            yield Finding("Mode", "records go by", "ok", slug)
    elif Path("/proc/driver/nvidia/version").exists():
        yield Finding("Mode", "hidden GPU", *_hidden_gpu())


def _hidden_gpu() -> tuple[str, str]:
    """Say why torch sees none of the GPUs whose driver is loaded."""
    import torch

    if os.environ.get("TILEBOOK_DEVICE", "").lower() == "cpu":
        return "no", "TILEBOOK_DEVICE=cpu hides it"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "no", "CUDA_VISIBLE_DEVICES hides it"
    if torch.version.cuda is None:
        return "no", "this torch was built without CUDA"
    return "broken", "NVIDIA's driver is loaded, but torch finds no GPU"


def _features() -> Iterator[Finding]:
    from tilebook import device

    for name, (meaning, _) in device.FEATURES.items():
        state = "ok" if device.has(name) else "no"
        yield Finding("Hardware", name, state, meaning)


def _abilities() -> Iterator[Finding]:
    from tilebook import _pulse, device

    launches = device.launch_device_type()
    how = {"cuda": "compiled", "cpu": "interpreted on the CPU, at small sizes"}
    if launches is None:
        yield _cannot("run kernels", "no GPU, and TRITON_INTERPRET=0")
    else:
        yield _try("run kernels", lambda: _pulse.run() or how[launches])
    if launches == "cuda":
        yield _compiler()
        yield _can("measure", "python -m tilebook.measure --list")
    else:
        yield _cannot("measure", "needs a GPU; recorded figures are shown instead")
    if launches == "cpu":
        yield _try("interpreter as repaired", _check_repairs)
    for target in ("sm_90", "gfx942"):
        name = f"compile for {target}"
        yield _try(name, lambda target=target: _pulse.compile_for(target))
    tool = shutil.which("compute-sanitizer")
    if launches == "cuda" and tool:
        yield _can("compute-sanitizer", tool)
    else:
        needs = (
            "a GPU" if launches != "cuda" else "the CUDA toolkit, for one planted bug"
        )
        yield _cannot("compute-sanitizer", f"needs {needs}")


def _compiler() -> Finding:
    """Triton builds its launcher with a C compiler."""
    wanted = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    found = next(
        (path for path in map(shutil.which, filter(None, wanted)) if path), None
    )
    if found:
        return _can("C compiler", found)
    return Finding("What runs", "C compiler", "broken", "none; Triton needs cc or gcc")


def _check_repairs() -> str:
    faulty = [repair.name for repair in interpreter.REPAIRS if repair.needed()]
    if faulty:
        raise RuntimeError(f"wrong in this Triton: {', '.join(faulty)}")
    return f"{len(interpreter.REPAIRS)} repairs, all in effect"


def _records() -> Iterator[Finding]:
    from tilebook import measure

    by_gpu: dict[str, list[Path]] = {}
    for path in measure.committed():
        by_gpu.setdefault(path.parent.name, []).append(path)
    if not by_gpu:
        yield Finding("Records", "recorded GPUs", "no", "none yet")
    for gpu, paths in sorted(by_gpu.items()):
        damaged = []
        for path in paths:
            try:
                measure.load(path.stem, gpu)
            except measure.RecordError as error:
                damaged.append(str(error))
        names = ", ".join(path.stem for path in paths)
        state, detail = ("broken", "; ".join(damaged)) if damaged else ("ok", names)
        yield Finding("Records", gpu, state, detail)


def _can(name: str, detail: str) -> Finding:
    return Finding("What runs", name, "ok", detail)


def _cannot(name: str, why: str) -> Finding:
    return Finding("What runs", name, "no", why)


def _try(name: str, action: Callable[[], str]) -> Finding:
    try:
        return _can(name, action())
    except Exception as error:
        return Finding("What runs", name, "broken", _say(error))


def _say(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for section in dict.fromkeys(finding.section for finding in findings):
        table = Table(title=section, title_justify="left", box=None, show_header=False)
        for _ in range(3):
            table.add_column(overflow="fold")
        for finding in findings:
            if finding.section == section:
                state, detail = _STATES[finding.state], escape(finding.detail)
                table.add_row(finding.name, state, detail)
        console.print(table, "")
    if interpreter.switched_on():
        console.print("What the interpreter does otherwise than a GPU:")
        for limit in interpreter.LIMITS:
            console.print(f"  * {escape(limit)}")


def main(arguments: list[str] | None = None) -> int:
    """Print the findings.

    Args:
        arguments: the command line's, by default this process's.

    Returns:
        The exit status: 1 if something is broken.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tilebook.doctor", description=__doc__
    )
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    options = parser.parse_args(arguments)
    findings = examine()
    broken = [finding for finding in findings if finding.state == "broken"]
    if options.json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"ok": not broken, "findings": listed}, indent=2))
    else:
        _print(findings)
    for finding in broken:
        print(f"broken: {finding.name}: {finding.detail}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
