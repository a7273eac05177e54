"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.parallel.selftest import Question
from tilebook.softmax import solutions

__all__ = ["QUESTIONS", "Question"]

M, N = 4096, 8192
NAIVE, FUSED = solutions.traffic(M, N, 4)
TIMES = f"{NAIVE / FUSED:.1f} times"

OLD, NEW, SUM = 2.0, 5.0, 30.0
_, MERGED = solutions.merge(OLD, SUM, NEW, 1.0)

QUESTIONS = (
    Question(
        text=(
            f"A softmax of {M:,} rows of {N:,} float32 is made of five kernels, from "
            "row maximum to quotient. How many times the bytes of a single kernel do "
            "they move?"
        ),
        options=("2.0 times", TIMES, "5.0 times", "8.0 times"),
        answer=TIMES,
        explanation=(
            "Together they read 5 MN + 2 M elements and write 3 MN + 2 M; one kernel "
            "reads MN and writes MN. Beside MN, M is nothing."
        ),
    ),
    Question(
        text=(
            "Why does a softmax subtract the maximum of its row before it takes "
            "exponentials?"
        ),
        options=(
            "To make the exponentials add up to 1",
            "To keep them from overflowing",
            "To make the result more precise near 0",
            "To be able to work chunk by chunk",
        ),
        answer="To keep them from overflowing",
        explanation=(
            "e^89 is beyond float32. Subtracting any number leaves the quotient as it "
            "is; after subtracting the largest term no exponent is positive, and one "
            "exponential is 1, so that the sum isn't 0 either."
        ),
    ),
    Question(
        text=(
            f"So far the maximum is {OLD:g} and the sum {SUM:g}. The next chunk is the "
            f"single term {NEW:g}. What is the sum now?"
        ),
        options=(
            f"{SUM + 1:.2f}",
            f"{MERGED:.2f}",
            f"{solutions.merge(NEW, SUM, OLD, 1.0)[1]:.2f}",
            f"{1.0:.2f}",
        ),
        answer=f"{MERGED:.2f}",
        explanation=(
            f"What was added up so far is of terms less {OLD:g} and has to be of terms "
            f"less {NEW:g}: it is multiplied by e^({OLD:g} - {NEW:g}). Then the new "
            "term's e^0 is added."
        ),
    ),
    Question(
        text="What must a masked load of a row have as other= before a maximum?",
        options=(
            "0.0",
            "The row's first element",
            'float("-inf")',
            "It doesn't matter, the mask is applied to the store",
        ),
        answer='float("-inf")',
        explanation=(
            "Padding must be the neutral element of what consumes it. 0 is right until "
            "a row has nothing above it."
        ),
    ),
    Question(
        text=(
            "A variance is computed as the mean of squares less the square of the "
            "mean, in float32. The mean is ten thousand times the standard deviation. "
            "What comes out?"
        ),
        options=(
            "The variance, to about seven digits",
            "The variance, to about three digits",
            "A number that has nothing to do with it",
            "NaN",
        ),
        answer="A number that has nothing to do with it",
        explanation=(
            "Both numbers are 10^8 times the variance, and float32 holds them to some "
            "seven digits: the variance is below the last of these. Welford's "
            "recurrence never forms such numbers."
        ),
    ),
)
