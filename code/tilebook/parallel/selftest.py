"""Five questions on the chapter; what can be computed of the answers is computed."""

from dataclasses import dataclass

from tilebook.parallel import solutions

__all__ = ["QUESTIONS", "Question"]


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Args:
        text: the question.
        options: what to choose from.
        answer: the right one of them.
        explanation: why, shown with the answer.
    """

    text: str
    options: tuple[str, ...]
    answer: str
    explanation: str

    def __post_init__(self) -> None:
        if self.options.count(self.answer) != 1:
            raise ValueError(f"{self.answer!r} must be one option of {self.options}")


def _pair(programs: int, idle: int) -> str:
    return f"{programs} programs, {idle} idle lanes"


N, BLOCK = 10_000, 1024
PROGRAMS, IDLE = solutions.count(N, BLOCK)

WARPS, WARP = 4, 32
PER_THREAD = BLOCK // (WARPS * WARP)

# The first program whose offset, pid * BLOCK, has no place in 31 bits.
FIRST_WRAPPED = 2**31 // BLOCK

QUESTIONS = (
    Question(
        text=(
            f"A masked kernel with BLOCK = {BLOCK:,} doubles {N:,} elements. How many "
            "programs are launched, and how many of their lanes does the mask idle?"
        ),
        options=(
            _pair(N // BLOCK, N % BLOCK),
            _pair(PROGRAMS, IDLE),
            _pair(PROGRAMS, N % BLOCK),
            _pair(N, 0),
        ),
        answer=_pair(PROGRAMS, IDLE),
        explanation=(
            f"The grid is rounded up: cdiv({N:,}, {BLOCK:,}) = {PROGRAMS}. Together "
            f"they have {PROGRAMS * BLOCK:,} lanes, {IDLE} more than elements."
        ),
    ),
    Question(
        text=(
            f"That kernel is launched with num_warps={WARPS} on an NVIDIA GPU. How "
            "many elements does each thread hold of the block that tl.load returns?"
        ),
        options=("1", f"{PER_THREAD}", f"{WARP}", f"{BLOCK}"),
        answer=f"{PER_THREAD}",
        explanation=(
            f"A warp has {WARP} threads, so the program has {WARPS * WARP}, and "
            f"{BLOCK:,} elements divided among them make {PER_THREAD} each. You "
            "choose BLOCK and num_warps; the compiler chooses who holds what."
        ),
    ),
    Question(
        text=(
            "What does a lane hold after a tl.load whose mask excludes it, where no "
            "other= was given?"
        ),
        options=(
            "0",
            "NaN",
            "Whatever memory holds there",
            "Nothing you may rely on",
        ),
        answer="Nothing you may rely on",
        explanation=(
            "The value is undefined. It is 0 in the interpreter and on many NVIDIA "
            "builds, which is why code that relies on it passes its tests. The "
            "memory itself isn't touched."
        ),
    ),
    Question(
        text=(
            f"Offsets are computed as pid * {BLOCK:,} + arange, all in int32. Which "
            "is the first program that addresses the wrong elements?"
        ),
        options=(
            f"{FIRST_WRAPPED // 4:,}, where byte addresses pass 2^31",
            f"{FIRST_WRAPPED:,}",
            f"{2 * FIRST_WRAPPED:,}",
            "None: pointers have 64 bits",
        ),
        answer=f"{FIRST_WRAPPED:,}",
        explanation=(
            f"{FIRST_WRAPPED:,} * {BLOCK:,} is 2^31, which int32 holds as -2^31. "
            "The pointer has 64 bits, but the offset has wrapped before it is added; "
            "it counts elements, so the size of an element doesn't matter."
        ),
    ),
    Question(
        text=(
            "A kernel that adds up a vector is right in the interpreter at every "
            "length and gives another, smaller total on each run on a GPU. Which "
            "tool shows the cause?"
        ),
        options=(
            "Poisoned outputs",
            "Guard bands",
            "The microscope's races()",
            "A float64 reference",
        ),
        answer="The microscope's races()",
        explanation=(
            "Programs read the total, add to it and store it without an atomic, so "
            "updates are lost when two do it at once. The interpreter runs programs "
            "one after another and can't lose any; races() compares which program "
            "read and wrote which element, and needs no collision to happen."
        ),
    ),
)
