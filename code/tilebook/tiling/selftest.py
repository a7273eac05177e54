"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.parallel.selftest import Question
from tilebook.tiling import exercises

__all__ = ["QUESTIONS"]

LAYOUT, SIZE = exercises.LAYOUT, exercises.SIZE
HELD = SIZE * SIZE // (int(LAYOUT.threads((SIZE, SIZE)).max()) + 1)

COLUMNS, ELEMENT = 1000, 2
FACTOR = max(f for f in (1, 2, 4, 8) if COLUMNS % f == 0)

QUESTIONS = (
    Question(
        text="What does tl.trans cost, taken by itself?",
        options=(
            "One trip through shared memory",
            "One barrier",
            "Nothing, but the store after it may want another layout",
            "As many register moves as a thread holds elements",
        ),
        answer="Nothing, but the store after it may want another layout",
        explanation=(
            "Each thread keeps what it has, and the layout's lists are reversed. The "
            "trip through shared memory belongs to the change of layout that the store "
            "asks for, and a transposed input needs none."
        ),
    ),
    Question(
        text=(
            f"A tile of {SIZE} by {SIZE} has the layout sizePerThread = [1, 8], "
            "threadsPerWarp = [4, 8], warpsPerCTA = [4, 1]. How many elements does a "
            "thread hold?"
        ),
        options=("8", "16", f"{HELD}", "64"),
        answer=f"{HELD}",
        explanation=(
            f"Four warps of 32 threads share {SIZE * SIZE:,} elements, {HELD} each: "
            f"{HELD // 8} runs of 8, because the layout covers 16 rows and begins anew."
        ),
    ),
    Question(
        text=(
            "A kernel on tiles of BLOCK_M by BLOCK_N masks with one comparison, "
            "offs < m * n. On which contiguous matrices is it right?"
        ),
        options=(
            "On all: no access leaves the tensor",
            "Where BLOCK_M divides m",
            "Where BLOCK_N divides n",
            "Only where both divide",
        ),
        answer="Where BLOCK_N divides n",
        explanation=(
            "Rows past the last have offsets past m * n, so one comparison is enough "
            "for them. Columns past the last are the next row's first, which another "
            "program owns."
        ),
    ),
    Question(
        text=(
            f"Rows of {COLUMNS:,} bf16 numbers lie one behind the other, and a kernel "
            "gets their distance as a plain argument. How many bytes may a load take "
            "at once?"
        ),
        options=tuple(f"{ELEMENT * f}" for f in (1, 2, 4, 8)),
        answer=f"{ELEMENT}",
        explanation=(
            f"Triton asks whether {COLUMNS:,} is 1 and whether 16 divides it. Neither, "
            f"so a row may begin anywhere. That {FACTOR} divides it, and 16 bytes the "
            "start of each row, has to be said by a constant factor."
        ),
    ),
    Question(
        text="Which of these fp32 matrices can a tensor descriptor describe?",
        options=(
            "A contiguous one of 100 by 30",
            "x[:, 1:] of a contiguous x of 100 by 37",
            "x.t() of a contiguous x of 64 by 64",
            "A contiguous one of 7 by 4",
        ),
        answer="A contiguous one of 7 by 4",
        explanation=(
            "Its rows have 16 bytes. Rows of 30 have 120, no multiple of 16; x[:, 1:] "
            "begins 4 bytes past one, and rows of 37 are none either; the last stride "
            "of x.t() is 64. Describe x there, and turn the tile."
        ),
    ),
)
