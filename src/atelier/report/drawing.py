"""How pictures look and are saved: PNG files whose bytes depend on the figures alone."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import files
from atelier.report.png import packed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plans = dict[str, tuple[str, Callable[[], "Figure"]]]  # file name -> (caption, what draws it)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by colour-blind readers too
STYLES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 100
LOOK = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def save(plans: Plans, folder: Path) -> dict[str, str]:
    """Write the pictures and remove those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.glob("*.png")} - set(plans):
        (folder / stale).unlink()
    for file, (_, picture) in plans.items():
        files.write_bytes(folder / file, _png(picture))
    return {file: caption for file, (caption, _) in plans.items()}


def _png(picture: Callable[[], "Figure"]) -> bytes:
    """Drawn under matplotlib's own defaults, whatever the reader's settings, and packed into 256 colours."""
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(LOOK)
        picture().savefig(drawn, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return packed(drawn.getvalue())


def grid(count: int, columns: int, width: float, height: float, **options: Any) -> tuple["Figure", list["Axes"]]:
    """A figure of `count` panels, each width x height inches, and the panels from left to right, row by row."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def by_decades(axes: "Axes") -> None:
    """A logarithmic x axis whose labels are few and plain: 0.5, 20, 5k."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    thousands = EngFormatter(sep="")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: thousands(x) if x >= 1000 else f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def frontier(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """The points (cost, figure) that are better than all that cost as little or less, by rising cost."""
    sign, best = 1 if higher else -1, []
    for cost, figure in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not best or sign * figure > sign * best[-1][1]:
            best.append((cost, figure))
    return best


def ends(found: dict[str, Any]) -> list[float]:
    """The interval of a summary; a single seed's has no width."""
    return found["ci95"] or [found["mean"], found["mean"]]


def legend_beside(axes: "Axes") -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
