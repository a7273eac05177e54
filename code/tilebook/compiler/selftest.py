"""Five questions on the chapter."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

QUESTIONS = (
    Question(
        text="At which stage does it become known which thread holds which element?",
        options=("TTIR", "TTGIR", "LLVM IR", "PTX"),
        answer="TTGIR",
        explanation=(
            "A layout is a part of each tile's type there. Behind it there are no "
            "tiles: what a thread does has been written out."
        ),
    ),
    Question(
        text="Why can a pass that changes a layout change the bits of a sum?",
        options=(
            "Conversions between layouts round",
            "Threads add up their own elements first, and these are others then",
            "Shared memory holds fewer bits",
            "It can't: layouts only say where elements are",
        ),
        answer="Threads add up their own elements first, and these are others then",
        explanation=(
            "Floating-point sums depend on their order. Moving elements about changes "
            "none of them, adding them up in another order changes the total."
        ),
    ),
    Question(
        text="What makes layouts linear, so that a matrix describes one?",
        options=(
            "Sides and counts are powers of two, and places are added without a carry",
            "Tiles have two dimensions",
            "Tensor cores multiply matrices",
            "Every thread holds equally many elements",
        ),
        answer=(
            "Sides and counts are powers of two, and places are added without a carry"
        ),
        explanation=(
            "So every bit of a register's, lane's or warp's number has a place of its "
            "own that it leads to, whatever the others are. Swizzling is such a map, "
            "too, since xor is that addition."
        ),
    ),
    Question(
        text="Two buffers lie at the same place in shared memory. When may they?",
        options=(
            "Never: it is a mistake",
            "If they have the same size",
            "If they are never live at the same operation",
            "If different warps use them",
        ),
        answer="If they are never live at the same operation",
        explanation=(
            "Between the last look at one and the first write to the other there is a "
            "barrier, so that no thread writes what another one still reads."
        ),
    ),
    Question(
        text=(
            "You edit a file of TTGIR that a launch takes by `ir_override`, and the "
            "results stay as they were. What is the likeliest reason?"
        ),
        options=(
            "Later passes undid it",
            "The kernel compiled under that file's name before is in the cache",
            "Layouts can't be edited",
            "The driver keeps old kernels",
        ),
        answer="The kernel compiled under that file's name before is in the cache",
        explanation=(
            "Options count by what they are, and this one is a name. Name the file by "
            "what is in it."
        ),
    ),
)
