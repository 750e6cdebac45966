"""A study in a few lines for a terminal."""

from typing import Any

from atelier import params, paths
from atelier.report import results, tables
from atelier.report.results import Results, higher_is_better


def main(name: str) -> None:
    print(text(name))


def text(name: str) -> str:
    """A study's or an experiment's figures, where its report lies, how to look at the runs.

    Raises AtelierError if it is unknown or has not run.
    """
    entry = params.load(families=False).entry(name)
    folder = paths.report(name)
    lines = table(results.read(folder, name, entry))
    where = (folder / "index.md").relative_to(paths.root())
    return f"{entry.asks}\n\n{lines}\n\nreport: {where}\nruns:   make ui opens them in MLflow"


def table(results: Results) -> str:
    """Each model's headline figure with its interval and size, and what a net pruned to half keeps.

    Without a headline, as in an experiment, its first figure.
    """
    lines = [("model", "metric", "mean [95 % interval]", "parameters")]
    for model, entry in results.models.items():
        metric = results.headline(model) or next(iter(results.metrics(model)), None)
        shown = tables.spread_with_unit(metric or "", results.summary(model, metric))
        lines.append((model, metric or tables.MISSING, shown, tables.count(entry["exact"].get("parameters"))))
    a, b, c, d = (max(map(len, column)) for column in zip(*lines, strict=True))
    text = [f"{model:{a}}  {metric:{b}}  {shown:{c}}  {size:>{d}}" for model, metric, shown, size in lines]
    return "\n".join([*text, *(_half(results, model) for model in results.models if _halves(results, model))])


def _halves(results: Results, model: str) -> list[dict[str, Any]]:
    """The ways of pruning that leave at most half of the parameters, at the largest such size of each."""
    largest: dict[tuple, dict[str, Any]] = {}
    for g in results.pruned:
        fits = g["model"] == model and g["parameters"] <= results.models[model]["exact"]["parameters"] / 2
        if fits and not g["recovery"].startswith("scratch") and g["validation"]["mean"] is not None:
            way = (g["criterion"], g["schedule"], g["recovery"])
            largest[way] = max(largest.get(way, g), g, key=lambda g: g["parameters"])
    return list(largest.values())


def _half(results: Results, model: str) -> str:
    """The best half-size net by validation; its test figure is only told."""
    halves = _halves(results, model)
    metric = halves[0]["metric"]
    best = max(halves, key=lambda g: g["validation"]["mean"] * (1 if higher_is_better(metric) else -1))
    share = 100 * best["parameters"] / results.models[model]["exact"]["parameters"]
    return (
        f"{model} pruned to {share:.0f} % of its parameters ({best['criterion']}, {best['recovery']}): "
        f"test {metric} {tables.with_unit(metric, best['test']['mean'])}, "
        f"{tables.spread_with_unit(metric, best['to_dense'], difference=True)} against dense"
    )
