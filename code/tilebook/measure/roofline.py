"""Limits: what a GPU can do at best, and whether a row keeps within it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from tilebook import device

# Two measurements of one ceiling differ by this much on a good day.
MARGIN = 1.02

# The datasheet's column for each dtype whose products go through the matrix cores.
_RATES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    # float32 operands may be rounded to TF32, the faster of the two ways.
    "float32": "tf32",
}


@dataclasses.dataclass(frozen=True)
class Roof:
    """A bandwidth and a rate: the two limits of a roofline.

    Attributes:
        gbps: GB/s (powers of ten).
        tflops: TFLOP/s.
    """

    gbps: float
    tflops: float

    @property
    def ridge(self) -> float:
        """The intensity, in FLOP per byte, from which arithmetic is the limit."""
        return self.tflops * 1e3 / self.gbps

    def attainable(self, intensity: float) -> float:
        """The rate that a kernel of some intensity can reach.

        Args:
            intensity: FLOP per byte of compulsory traffic.

        Returns:
            TFLOP/s.
        """
        return min(self.tflops, intensity * self.gbps / 1e3)

    def floor(self, bytes: float = 0, flops: float = 0) -> float:
        """The time below which no kernel can do this work.

        Args:
            bytes: compulsory traffic.
            flops: the model's arithmetic.

        Returns:
            Milliseconds.
        """
        return max(bytes / self.gbps / 1e6, flops / self.tflops / 1e9)


def measured(canary: Mapping[str, Any]) -> Roof:
    """The ceilings measured around an experiment.

    Args:
        canary: a record's ``canary``.

    Returns:
        Copy bandwidth and cuBLAS's rate at 8192³, the better of before and after.
    """
    ends = (canary["open"], canary["close"])
    return Roof(
        max(x["copy_gbps"] for x in ends), max(x["matmul_tflops"] for x in ends)
    )


DRIFT = 0.03
"""How far a ceiling may move between opening and closing before an experiment is
repeated; if it moves again, whoever reads the record is told."""
AT_THE_POWER_LIMIT = 0.10
"""How far the ceiling of arithmetic may have moved in a record that is kept. A large
product of random numbers draws all the power that a card may, whose clock then depends
on the seconds before: looks at it differ by as much, from one moment to the next, where
those at the memory's ceiling agree within a hundredth. Ratios of interleaved rounds
don't feel it."""


def drift(
    opening: Mapping[str, float],
    closing: Mapping[str, float],
    rows: Iterable[Mapping[str, Any]],
) -> float:
    """How far the ceilings moved that an experiment's rows are held against.

    Args:
        opening: the ceilings measured before the experiment.
        closing: those measured after it.
        rows: the experiment's; the matrix product counts if any has an arithmetic rate.

    Returns:
        The largest relative change. A card that was idle multiplies faster for some
        seconds than one that was not, which says nothing of rows without a rate.
    """
    rated = any(row["tflops"] is not None for row in rows)
    names = ["copy_gbps"] + (["matmul_tflops"] if rated else [])
    return max(abs(closing[name] / opening[name] - 1) for name in names)


def datasheet(slug: str, dtype: str = "bfloat16") -> Roof | None:
    """The vendor's peaks for a GPU.

    Args:
        slug: the GPU's short name.
        dtype: of the operands; names the rate.

    Returns:
        The peaks, or None where they aren't known.
    """
    sheet = device.DATASHEET.get(slug)
    rate = getattr(sheet, _RATES.get(dtype, ""), None)
    return Roof(sheet.hbm_gbps, rate) if sheet and rate else None


def promised_gbps(slug: str, canary: Mapping[str, Any]) -> float:
    """The bandwidth that the vendor promises.

    Args:
        slug: the GPU's short name.
        canary: a record's, for a GPU whose datasheet isn't known.

    Returns:
        The datasheet's GB/s, or else what a copy was measured at.
    """
    sheet = device.DATASHEET.get(slug)
    return sheet.hbm_gbps if sheet else measured(canary).gbps


def impossible(
    rows: Iterable[Mapping[str, Any]],
    canary: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> list[str]:
    """Find rows that can't be true.

    A call moves at least its compulsory traffic less what the L2 cache can hold back,
    and moves it no faster than the best bandwidth measured on that card around the
    experiment (of a copy, a read, and a sum of two tensors). Its arithmetic is no
    faster than the datasheet's dense peak: cuBLAS at one size is no ceiling, since a
    smaller product meets no power limit and runs faster. The margin is 2 %.

    Args:
        rows: a record's rows.
        canary: its canary.
        provenance: its provenance.

    Returns:
        A sentence for each row beyond a ceiling or its error bound.
    """
    ends = (canary["open"], canary["close"])
    gbps = max(x[k] for x in ends for k in ("copy_gbps", "read_gbps", "add_gbps"))
    found = []
    for row in rows:
        size = ", ".join(f"{k}={v}" for k, v in row["shape"].items())
        what = f"{row['impl']} ({size}, {row['dtype']}, {row['regime']})"
        moved = max(0, (row["bytes"] or 0) - provenance["l2_bytes"])
        rate = moved / row["ms"] / 1e6
        if rate > gbps * MARGIN:
            found.append(
                f"{what}: {rate:.0f} GB/s past the cache; the card reaches {gbps:.0f}"
            )
        peak = datasheet(provenance["slug"], row["dtype"])
        done = (row["flops"] or 0) / row["ms"] / 1e9
        if peak and done > peak.tflops * MARGIN:
            found.append(
                f"{what}: {done:.0f} TFLOP/s, but the card's peak is {peak.tflops:.0f}"
            )
        error, bound = row["relative_error"], row["error_bound"]
        if error is not None and bound is not None and error > bound:
            found.append(f"{what}: relative error {error:.2g} above {bound:.2g}")
    return found
