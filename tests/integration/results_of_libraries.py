"""Results of libraries that are too large for everybody's environment; see test_results_apart.py.

Each row of docs/reference/results.md that they are in, with programs and what becomes of their results.
"""

from collections.abc import Callable
from typing import Any

TABLE = {
    "rows": 2,
    "columns": ["a", "b"],
    "first": [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
    "output": "final.parquet",
}
DATA = {"a": [1, 2], "b": ["x", None]}


def pandas() -> Any:
    import pandas

    return pandas.DataFrame(DATA)


def polars() -> Any:
    import polars

    return polars.DataFrame(DATA)


def arrow() -> Any:
    import pyarrow

    return pyarrow.table(DATA)


def arrow_values() -> Any:
    import pyarrow

    return [pyarrow.array([1, None]), pyarrow.chunked_array([[1], [2]]), pyarrow.scalar(1.5)]


def axes() -> Any:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.plot([1, 2, 3])
    return pyplot.gca()


def bars() -> Any:
    import plotly.graph_objects

    return plotly.graph_objects.Figure(plotly.graph_objects.Bar(y=[1, 2, 3]))


def image(mode: str) -> Any:
    from PIL import Image

    return Image.new(mode, (2, 2))


FIGURE, PAGE, IMAGE = {"output": "figure.png"}, {"output": "figure.html"}, {"output": "image.png"}

ROWS: dict[str, list[tuple[Callable[[], Any], Any]]] = {
    "pandas `DataFrame`": [(pandas, TABLE)],
    "polars `DataFrame`, `LazyFrame`": [(polars, TABLE), (lambda: polars().lazy(), TABLE)],
    "polars `Series`": [(lambda: polars()["b"], ["x", None])],
    "Arrow `Table`, `RecordBatch`": [(arrow, TABLE), (lambda: arrow().to_batches()[0], TABLE)],
    "Arrow array, scalar": [(arrow_values, [[1, None], [1, 2], 1.5])],
    "matplotlib figure, axes": [(axes, FIGURE), (lambda: axes().figure, FIGURE)],
    "plotly figure": [(bars, PAGE)],
    "PIL image": [(lambda mode=mode: image(mode), IMAGE) for mode in ("RGB", "CMYK", "P")],
}
