"""Five questions on the chapter."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

QUESTIONS = (
    Question(
        text=(
            "A row that no program can hold is read twice. Why does the second pass "
            "walk from the end to the beginning?"
        ),
        options=(
            "Adding in the other order cancels the rounding errors",
            "The maximum is known only at the end",
            "So that loads and stores take turns",
            "What was read last is what the cache still holds",
        ),
        answer="What was read last is what the cache still holds",
        explanation=(
            "From the beginning on, each chunk would have been evicted just before its "
            "turn, by the ones behind it."
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
            "Programs that wait for one another's letters are launched together or not "
            "at all. What could happen to a grid that is larger than the card has room "
            "for, if it were launched like any other?"
        ),
        options=(
            "Those that run wait for ever for letters of those that can't start",
            "The letters of two rows could be mixed up",
            "Some rows would be computed twice",
            "Nothing: the rest starts as soon as there is room",
        ),
        answer="Those that run wait for ever for letters of those that can't start",
        explanation=(
            "There is no room before somebody ends, and nobody ends before all letters "
            "of the row have come."
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
