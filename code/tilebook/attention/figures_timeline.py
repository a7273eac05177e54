"""The chapter's picture of two groups that weigh and wait, as measured."""

from matplotlib.patches import Rectangle

from tilebook.attention import conclusions_timeline
from tilebook.attention.clocked import EVENT, WHO
from tilebook.attention.timeline import Block
from tilebook.measure import Record
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.parallel.figures import FILLS, INK, Picture

FILL = {"scores": FILLS[0], "weights": FILLS[1], "values": FILLS[3]}


def blocks(record: Record, d: int) -> list[Block]:
    """Read the clocks of a program out of a record.

    Args:
        record: "attention-timeline".
        d: features.
    """
    return [
        Block(row["op"], row["shape"]["block"], *(row["extra"][name] for name in EVENT))
        for row in record.select(d=d)
        if row["op"] in WHO
    ]


def spans(block: Block) -> dict[str, tuple[float, float]]:
    """When a group waits for scores, weighs, and waits for values."""
    return {
        "scores": (block.asked, block.there),
        "weights": (block.there, block.weighed),
        "values": (block.weighed, block.added),
    }


def timeline(record: Record) -> Picture:
    """Draw what both groups of a program do for some blocks.

    Args:
        record: "attention-timeline".
    """
    sizes = sorted({row["shape"]["d"] for row in record.rows})
    told = []
    with style():
        figure = Drawing(figsize=(7.2, 1.5 * len(sizes) + 0.7))
        panels = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
        for axes, d in zip(panels, sizes, strict=True):
            found = blocks(record, d)
            last = max(block.added for block in found)
            for block in found:
                lane = WHO.index(block.who)
                for what, (begin, end) in spans(block).items():
                    # What threads compute is below, what they wait for above.
                    top = lane + (0.5 if what == "weights" else 0.12)
                    axes.add_patch(
                        Rectangle(
                            (begin, top), end - begin, 0.38, facecolor=FILL[what],
                            edgecolor=GREY, linewidth=0.6, label=what,
                        )
                    )  # fmt: skip
                    if end - begin > last / 40:
                        axes.text(
                            (begin + end) / 2, top + 0.19, str(block.block),
                            ha="center", va="center", color=INK, fontsize=8,
                        )  # fmt: skip
            axes.set(xlim=(0, last), ylim=(len(WHO), 0), title=f"{d} features")
            axes.set_yticks([lane + 0.5 for lane in range(len(WHO))], WHO)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False)
            share = conclusions_timeline.shares(record, d).beside
            told.append(
                f"{d} features: {share:.2f} of the time that a group weighs the other "
                "one waits"
            )
        named = dict(zip(*panels[0].get_legend_handles_labels()[::-1], strict=True))
        panels[0].legend(named.values(), named.keys(), loc="upper right", ncols=3)
        panels[-1].set_xlabel("clocks; upper bars wait for a product, lower bars weigh")
    alt = (
        "Two lanes for each size of heads, one for each group of warps, with bars for "
        "when it waits for scores, weighs, and waits for values. " + "; ".join(told)
    )
    return Picture(figure, f"{alt}.")
