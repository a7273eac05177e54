"""Tables of the chapter's records, from made-up numbers."""

from tilebook.matmul import first_call, results, shapes
from tilebook.matmul.shapes import Shape
from tilebook.measure import Record


def row(impl, op, shape, ms, regime="cold", **more):
    return {
        "impl": impl, "ours": impl in ("matmul", "linear"), "op": op,
        "shape": shape._asdict(), "dtype": "bfloat16", "regime": regime, "ms": ms,
        "rounds": [ms, ms], "tflops": shape.flops / ms / 1e9, "relative_error": 1e-6,
    } | more  # fmt: skip


def record(name, *rows):
    return Record(name, "?", list(rows), {}, {}, live=False)


def pair(op, shape, ours, theirs, regime="cold", peer="cuBLAS", impl="matmul"):
    found = (row(impl, op, shape, ours, regime), row(peer, op, shape, theirs, regime))
    return found


SQUARE = Shape(4096, 4096, 4096)
MADE = record(
    "matmul-bf16",
    *pair("matmul", SQUARE, 2.0, 3.0),
    *pair("matmul_nt", SQUARE, 2.0, 1.0),
    *pair("matmul", SQUARE, 2.0, 8.0, regime="steady"),
    *pair("matmul", Shape(1000, 1000, 1000), 1.0, 1.0),
    *pair("matmul", Shape(8192, 8192, 512), 4.0, 3.0),
    # The way down of the smaller model; m and n are equal all the same.
    *pair("matmul_nt", Shape(4096, 4096, 11008), 4.0, 5.0),
    *pair("matmul_nt", Shape(16, 4096, 11008), 4.0, 2.0),
    *pair("matmul_nt", Shape(16, 57344, 8192), 4.0, 4.4),
)


def test_squares_are_of_one_layout():
    found = results.squares(MADE)
    assert {row["op"] for row in found.rows} == {"matmul"}
    assert {row["shape"]["k"] for row in found.rows} == {4096, 1000}
    assert len(results.squares(MADE, "NT").rows) == 2
    assert not results.squares(MADE, "TN").rows


def test_layers_stand_by_model_and_by_rows():
    table = results.layers(MADE)
    assert [*table.index] == ["7B out", "7B down", "70B up"]
    assert [*table.columns] == [16, 4096]
    assert table.loc["7B out", 4096] == 0.5
    assert table.loc["7B down"].tolist() == [0.5, 1.25]
    assert table.loc["70B up", 16] == 1.1
    assert table.isna().sum().sum() == 2


def test_what_is_no_layer_stands_by_layout():
    table = results.others(MADE)
    assert [*table.index] == [
        *("4096 x 4096 x 4096", "1000 x 1000 x 1000", "8192 x 8192 x 512"),
    ]
    assert table.loc["4096 x 4096 x 4096", ["NN", "NT"]].tolist() == ["1.500", "0.500"]
    assert table.loc["8192 x 8192 x 512", "NN"] == "0.750"
    assert table.loc["4096 x 4096 x 4096", "TFLOP/s"] == "68.7"
    assert results.others(MADE, "steady").loc["4096 x 4096 x 4096", "NN"] == "4.000"


def test_turns_stand_by_implementation():
    made = record(
        "matmul-turns",
        *pair("matmul_nt", SQUARE, 2.0, 4.0, impl="beside"),
        *pair("matmul_nt", SQUARE, 1.0, 1.0, impl="beside", regime="steady"),
    )
    table = results.turns(made)
    assert table.loc["4096 x 4096 x 4096"].to_dict() == {"beside": 68.7, "cuBLAS": 34.4}


def test_every_measured_case_has_its_place_in_one_of_the_two():
    ops = {layout: op for op, layout in results.OPS.items()}
    made = [
        each
        for shape, layout in shapes.cases()
        for each in pair(ops[layout], shape, 1.0, 1.0)
    ]
    whole = record("matmul-bf16", *made)
    found = results.layers(whole).count().sum()
    found += (results.others(whole)[[*shapes.LAYOUTS]] != "").sum().sum()
    # The square that is a layer, too, is in both.
    assert found == len(shapes.cases()) + 1


def test_ends_are_held_against_the_fastest_peer_in_the_worse_regime():
    shape = Shape(512, 11008, 4096)
    rows = []
    for regime, ours in (("cold", 2.0), ("steady", 1.0)):
        rows += [
            row("linear", "linear, gelu", shape, ours, regime),
            row("torch.compile", "linear, gelu", shape, 3.0, regime),
            row("cuBLAS, then PyTorch", "linear, gelu", shape, 2.5, regime),
        ]
    table = results.ends(record("matmul-epilogue", *rows))
    assert table.to_dict() == {"gelu": {"512 x 11008 x 4096": 1.25}}


def test_first_calls_stand_in_seconds():
    calls = [*first_call.CALLS, first_call.NEXT]
    rows = [
        row(impl, call, SQUARE, 1e3 * (i + 1) * slow, "host")
        for impl, slow in (("matmul", 1), ("torch.compile", 10))
        for i, call in enumerate(calls)
    ]
    table = results.first_calls(record("matmul-autotune-cost", *rows))
    assert [*table.columns] == calls
    assert table.loc[("4096 x 4096 x 4096", "matmul")].tolist() == [1.0, 2.0, 3.0]
    assert table.loc[("4096 x 4096 x 4096", "torch.compile")].tolist() == [10, 20, 30]


def test_precisions_are_of_the_largest_square():
    small, large = Shape(64, 64, 64), Shape(128, 128, 128)
    rows = [
        row("tf32", "matmul", small, 1e-9, relative_error=1.0),
        row("tf32", "matmul", large, 4e-6, relative_error=3e-4),
        row("tf32", "matmul", large, 2e-6, "steady", relative_error=2e-4),
        row("ieee", "matmul", large, 8e-6, relative_error=1e-7),
        row("ieee", "matmul", Shape(64, 4096, 4096), 1e-9, relative_error=1.0),
    ]
    table = results.precisions(record("matmul-fp32", *rows))
    assert table["TFLOP/s"].tolist() == [2097.2, 524.3]
    assert table["relative error"].tolist() == ["3.0e-04", "1.0e-07"]
