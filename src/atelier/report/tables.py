"""Figures as text, and the Markdown tables of a report page. What is missing is a dash, never a number."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from atelier.report.results import CONTROLS, Results, higher_is_better, parts

MISSING = "–"
_PERCENT = {"accuracy", "accuracy_rounded", "f1_macro", "precision", "recall", "f1", "small"}
_PERCENT |= {"coverage", "least_class", "neighbour", "touching", "used"}
_PERCENT |= {"accuracy_cut", "logistic", "logistic_gain", "neighbours", "neighbours_gain", "other_class"}
_PERCENT |= {"edges", "edges_before", "edges_gain", "bars", "blobs", "excess", "gap"}
ATTACKS = tuple(f"under_{way}" for way in ("gaussian", "fgsm", "universal", "pgd", "squares", "transfer"))
CHECKS = ("steps_rise", "steps_left", "restarts_left", "squares_gain", "transfer_gain", "far", "zero_gradient")
_PERCENT |= {*ATTACKS, *CHECKS, "fgsm_accuracy", "pgd_accuracy"}
_PERCENT |= {"accuracy_dense", "accuracy_before", "lost", "exact", "refused", "int8_accuracy"}
_NATS = {"nll", "nll_grey", "nll_reverse", "nll_change", "penalised", "pseudo_nll", "nelbo", "kl", "distortion"}
_NATS |= {"free_energy", "reconstruction", "reconstruction_change", "drift", "log_z", "ais_gap", "miss"}
_NATS |= {"forward_few", "reverse_few", "value", "divergence", "unevenness"}
_TWO = {"psnr", "frechet", "nll_reverse", "ais_gap", "drift", "log_z", "distortion", "kl", "nelbo", "perplexity"}
_TWO |= {"degrees", "mean_degrees", "degrees_halves"}
_WHOLE = {"parameters", "weights", "multiply_adds", "bytes", "int8_bytes"}
_DECIMALS = dict.fromkeys(_PERCENT | _TWO | {"active", "atoms"}, 2) | {"mse": 5, "classes": 1}
_DECIMALS |= {"train_s": 2, "epoch_s": 2}
_SECONDS = {"train_s", "epoch_s", "inference_s_per_1000"}
_UNITS = {"psnr": "dB"} | dict.fromkeys(_NATS, "nats") | dict.fromkeys(_SECONDS, "s")
_MEASURES = ("accuracy", "accuracy_rounded", "f1_macro", "nll", "penalised", "ece", "mae")
_SHOWN_ELSEWHERE = {*_MEASURES, *ATTACKS, *CHECKS, "mse", "psnr", "sure_right", "sure_wrong", "norm", "small"}
_SPLITS = ("train", "validation", "test", "gap")

Summary = dict[str, Any] | None


def number(metric: str, value: float | None, signed: bool = False) -> str:
    """A figure without unit: percent and dB to two decimals, squared errors to five, counts whole, all else to four."""
    if value is None:
        return MISSING
    name = parts(metric)[2]
    if name in _WHOLE:
        return f"{value:+,.0f}" if signed and round(value) > 0 else f"{value:,.0f}"
    shown = 100 * value if name in _PERCENT else value
    text = f"{shown:.{_DECIMALS.get(name, 4)}f}"
    if float(text) == 0:
        text = f"{value:.2g}" if value and _DECIMALS.get(name) != 2 else text.removeprefix("-")
    return f"+{text}" if signed and float(text) > 0 else text


def unit(metric: str, difference: bool = False) -> str:
    """With a leading space where there is one: " %", for a difference " points"."""
    name = parts(metric)[2]
    if name in _PERCENT:
        return " points" if difference else " %"
    return f" {_UNITS[name]}" if name in _UNITS else ""


def label(metric: str) -> str:
    """What an axis says of a metric: `test gaussian-0.2 mae`, `test accuracy (%)`."""
    split, corruption, name = parts(metric)
    in_unit = unit(metric).strip()
    return " ".join(p for p in (split, corruption, name.replace("_", " "), f"({in_unit})" if in_unit else "") if p)


def scale(metric: str) -> int:
    """What an axis multiplies a metric by."""
    return 100 if unit(metric) == " %" else 1


def with_unit(metric: str, value: float | None, difference: bool = False) -> str:
    return MISSING if value is None else number(metric, value, difference) + unit(metric, difference)


def interval(metric: str, ci95: Sequence[float] | None, signed: bool = False) -> str:
    """`[96.90, 97.72]`."""
    return MISSING if ci95 is None else "[" + ", ".join(number(metric, end, signed) for end in ci95) + "]"


def spread(metric: str, found: Summary, signed: bool = False) -> str:
    """`97.31 [96.90, 97.72]`; a single seed has no interval."""
    if found is None or found["mean"] is None:
        return MISSING
    mean = number(metric, found["mean"], signed)
    return f"{mean} {interval(metric, found['ci95'], signed)}" if found["ci95"] else mean


def spread_with_unit(metric: str, found: Summary, difference: bool = False) -> str:
    text = spread(metric, found, signed=difference)
    return text if text == MISSING else text + unit(metric, difference)


def published(metric: str, value: float | None) -> str:
    """A source's figure with no more digits than the source gave."""
    if value is None:
        return MISSING
    return f"{100 * value:.6g} %" if parts(metric)[2] in _PERCENT else f"{value:,.10g}{unit(metric)}"


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns of figures are aligned right."""
    figures = [all(re.match(r"(\[?[-+]?\d|–|$)", row[i]) for row in rows) for i in range(len(columns))]
    lines = [columns, ["--:" if right else ":--" for right in figures], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def folded(title: str, body: str) -> str:
    """A part of the page that opens on a click."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def main(results: Results, sources: dict[str, dict[str, float]]) -> str:
    """A row per model with its headline metric, and one for every other figure that a source published for it."""
    rows = []
    for model, entry in results.models.items():
        said, exact, headline = sources.get(model, {}), entry["exact"], results.headline(model) or ""
        sizes = [_exact(exact, said, key) for key in ("parameters", "multiply_adds")]
        for metric in [headline, *(m for m in said if m not in exact and m != headline)]:
            found = results.summary(model, metric) or {"mean": None, "ci95": None, "n": MISSING}
            ours = [with_unit(metric, found["mean"]), interval(metric, found["ci95"]), str(found["n"])]
            shown = sizes if metric == headline else ["", ""]
            rows.append([model, _code(metric), *ours, published(metric, said.get(metric)), *shown])
    return table(["Model", "Metric", "Mean", "95 % interval", "n", "Published", "Parameters", "Multiply-adds"], rows)


def everything(results: Results) -> str:
    """A row per model, a column per metric that some model has; the models' settings beside their names."""
    metrics = list(dict.fromkeys(metric for model in results.models for metric in results.metrics(model)))
    rows = [
        [model, _listed(entry.get("settings", {})), *(spread_with_unit(m, results.summary(model, m)) for m in metrics)]
        for model, entry in results.models.items()
    ]
    names = [parts(metric)[2] for metric in metrics]
    heads = [n if names.count(n) == 1 else f"{parts(m)[0]} {n}" for m, n in zip(metrics, names, strict=True)]
    return table(["Model", "Settings", *heads], rows)


def _code(metric: str) -> str:
    return f"`{metric}`" if metric else MISSING


def _exact(exact: dict[str, int], said: dict[str, float], key: str) -> str:
    """A count, and the source's beside it where the source has one."""
    return count(exact.get(key)) + (f" (published {count(said[key])})" if key in said else "")


def verdicts(entries: Iterable[dict[str, Any]]) -> str:
    rows = []
    for e in entries:
        metric = e["metric"]
        margin = with_unit(metric, e["margin"] or None, difference=True).lstrip("+")
        estimate = [with_unit(metric, e["estimate"], difference=True), interval(metric, e["ci95"], signed=True)]
        sides = ", ".join(number(metric, mean) for mean in e["compared"])
        claim = [e["id"], e["says"], e["row"] or MISSING, f"**{e['verdict']}**", f"{e['kind']}, {_code(metric)}", sides]
        rows.append([*claim, *estimate, str(e["n"]), margin])
    columns = ["Claim", "Says", "Row", "Verdict", "Kind", "Compared", "Estimate", "95 % interval", "n", "Margin"]
    return table(columns, rows)


def measures(results: Results) -> str:
    """Train, validation, test and gap, measure by measure; reconstruction errors are those under the training noise."""
    rows = []
    for measure in _MEASURES:
        for model in results.models:
            headline = results.headline(model) or ""
            test = headline if parts(headline)[2] == measure else f"test.{measure}"
            keys = [test if split == "test" else f"{split}.{measure}" for split in _SPLITS]
            found = [results.summary(model, key) for key in keys]
            if any(found):
                rows.append([measure + _bracketed(measure), model, *(spread(measure, s) for s in found)])
    return table(["Measure", "Model", *(s.capitalize() for s in _SPLITS)], rows) if rows else ""


def own_measures(results: Results) -> str:
    """A row for each figure that only some families have, and each model or floor that has it."""
    every = [parts(metric) for model in results.models for metric in results.metrics(model)]
    names = dict.fromkeys(name for _, corruption, name in every if not corruption and name not in _SHOWN_ELSEWHERE)
    rows = []
    for name in names:
        keys, measure = [f"{split}.{name}" for split in _SPLITS[:-1]], name.replace("_", " ") + _bracketed(name)
        for model in results.models:
            found = [results.summary(model, key) for key in keys]
            if any(found):
                rows.append([measure, model, *(spread(name, s) for s in found)])
        for floor, figures in results.floors.items():
            if any(key in figures for key in keys):
                rows.append([measure, f"*{floor}*", *(number(name, figures.get(key)) for key in keys)])
    return table(["Measure", "Model or *floor*", *(s.capitalize() for s in _SPLITS[:-1])], rows) if rows else ""


def weights(results: Results) -> str:
    """Their norm, and how many are nearly 0, beside the penalties that the models have."""
    keys = ("weights.norm", "weights.small")
    rows = []
    for model, entry in results.models.items():
        penalties = {name: entry.get("settings", {}).get(name) for name in ("l1", "l2")}
        if any(results.summary(model, key) for key in keys):
            rows.append(
                [model, _listed(penalties), *(spread_with_unit(key, results.summary(model, key)) for key in keys)]
            )
    return table(["Model", "Penalty", "Norm", "Share under 0.001"], rows) if rows else ""


def _bracketed(name: str) -> str:
    found = unit(name).strip()
    return f" ({found})" if found else ""


def noise(results: Results, name: str) -> str:
    """Rows: models; columns: clean and every stored corruption of the test set."""
    corruptions, models = results.corruptions(name), results.with_metric(f"test.{name}")
    if not corruptions or not models:
        return ""
    keys = [f"test.{name}", *(f"test.{c}.{name}" for c in corruptions)]
    rows = [[model, *(spread(key, results.summary(model, key)) for key in keys)] for model in models]
    return table([f"Test {name}{_bracketed(name)}", "clean", *corruptions], rows)


def differences(results: Results, metrics: Iterable[str]) -> str:
    """Every pair of models; the last column says whether the interval leaves out zero."""
    order = list(results.models)
    rows = []
    for metric in metrics:
        pairs = results.differences[metric]
        named = [(*pair.split(" - "), found) for pair, found in pairs.items()]
        for a, b, found in sorted(named, key=lambda p: (order.index(p[0]), order.index(p[1]))):
            ci95, pair = found["ci95"], [_code(metric), f"{a} − {b}"]
            apart = MISSING if ci95 is None else "yes" if ci95[0] > 0 or ci95[1] < 0 else "no"
            difference = [with_unit(metric, found["mean"], difference=True), interval(metric, ci95, signed=True)]
            rows.append([*pair, *difference, str(found["n"]), apart])
    return table(["Metric", "Pair", "Difference", "95 % interval", "n", "Apart"], rows)


def per_class(results: Results) -> str:
    """F1, and precision and recall in brackets, of each class in percent; one column per classifier."""
    models = [m for m in results.models if m in results.confusion]
    if not models:
        return ""
    by_model = [{row["class"]: row for row in results.confusion[m]["per_class"]} for m in models]
    rows = []
    for first in results.confusion[models[0]]["per_class"]:
        cells = []
        for rows_of in by_model:
            f1, precision, recall = (number(k, rows_of[first["class"]][k]) for k in ("f1", "precision", "recall"))
            cells.append(f"{f1} ({precision}, {recall})")
        rows.append([str(first["class"]), count(first["support"]), *cells])
    return table(["Class", "Items", *models], rows)


def reconstruction(results: Results) -> str:
    """MAE, MSE and PSNR of the reconstruction from each kind of input, beside the floors that need no net."""
    names = ("mae", "mse", "psnr")
    models = results.with_metric("test.mae")
    rows = []
    for corruption in ["", *results.corruptions("mae")] if models else []:
        keys = [f"test.{corruption}.{name}" if corruption else f"test.{name}" for name in names]
        for model in models:
            rows.append([corruption or "clean", model, *(spread(key, results.summary(model, key)) for key in keys)])
        for floor, found in sorted(results.floors.items()):
            if any(key in found for key in keys):
                rows.append([corruption or "clean", f"*{floor}*", *(number(key, found.get(key)) for key in keys)])
    return table(["Input", "Model or *floor*", "MAE", "MSE", "PSNR (dB)"], rows) if rows else ""


def pruning(groups: Sequence[dict[str, Any]], dense: dict[str, int]) -> str:
    """A row per criterion, schedule, recovery and level, beside the dense net and those controls that there are."""
    metric, rows = groups[0]["metric"], []
    against = ["dense", *(name for name in (*CONTROLS, "random") if any(g[f"to_{name}"] for g in groups))]
    for g in sorted(groups, key=lambda g: (g["criterion"], g["schedule"], g["recovery"], g["level"])):
        n = g["test"]["n"]
        how = [g["criterion"], g["schedule"], g["recovery"], f"{g['level']:g}"]
        sizes = [f"{count(g[k])} ({100 * g[k] / dense[k]:.0f} %)" for k in ("parameters", "multiply_adds")]
        compared = [spread(metric, g[f"to_{name}"], signed=True) for name in against]
        chosen = {0: MISSING, n: "✓"}.get(g["chosen"], f"{g['chosen']} of {n}")
        rows.append([*how, *sizes, spread(metric, g["test"]), *compared, str(n), chosen])
    columns = ["Criterion", "Schedule", "Recovery", "Level", "Parameters", "Multiply-adds"]
    columns += [f"Test {metric}{_bracketed(metric)}", *(f"− {name}{_points(metric)}" for name in against)]
    return table([*columns, "n", "Chosen"], rows)


def _points(metric: str) -> str:
    found = unit(metric, difference=True).strip()
    return f" ({found})" if found else ""


def recipe(results: Results) -> str:
    """What differs between models; what they share is said once, above the table."""
    recipes = {model: entry.get("recipe", {}) for model, entry in results.models.items()}
    first = next(iter(recipes.values()))
    shared = {key for key in first if all(recipe.get(key) == first[key] for recipe in recipes.values())}
    rows = []
    for model, entry in results.models.items():
        settings = dict(entry.get("settings", {}))
        family, epochs = settings.pop("family", MISSING), entry.get("epochs") or {"mean": None}
        own = {key: value for key, value in recipes[model].items() if key not in shared}
        run = MISSING if epochs["mean"] is None else f"{epochs['mean']:.4g}"
        rows.append([model, family, _listed(settings), _listed(own), run])
    head = f"Shared by all: {_listed({key: first[key] for key in shared})}.\n\n"
    return head + table(["Model", "Family", "Settings", "Recipe of its own", "Epochs run"], rows)


class Chosen(NamedTuple):
    """Of what was tried, under `name`, in so many models: the best by the metric `judged`, and all values of that."""

    name: str
    best: str
    judged: str
    values: dict[str, float]

    @property
    def figure(self) -> str:
        return with_unit(self.judged, self.values[self.best])


def chosen(results: Results, tried: Mapping[str, Sequence[str]]) -> list[Chosen]:
    """Of each model's trials the one with the best mean on validation items, the first of equals."""
    found = []
    for name, models in tried.items():
        judged = f"validation.{parts(results.headline(models[0]) or '')[2]}"
        values = {model: (results.summary(model, judged) or {}).get("mean") for model in models}
        known = {model: value for model, value in values.items() if value is not None}
        if known:
            best = (max if higher_is_better(judged) else min)(known, key=known.__getitem__)
            found.append(Chosen(name, best, judged, known))
    return found


def trials(results: Results, tried: Mapping[str, Sequence[str]]) -> str:
    """Which trials were chosen, among which figures, and what they reach on test items."""
    rows = []
    for name, best, judged, values in chosen(results, tried):
        tested = results.headline(best) or ""
        found = f"{number(judged, min(values.values()))} to {with_unit(judged, max(values.values()))}"
        on_test = spread_with_unit(tested, results.summary(best, tested))
        rows.append([name, str(len(tried[name])), _code(judged), found, best, with_unit(judged, values[best]), on_test])
    columns = ["Model", "Trials", "Judged by", "Found", "Chosen", "Its figure", "On test items"]
    return table(columns, rows) if rows else ""


def _listed(settings: dict[str, Any]) -> str:
    """`batch 64, lr 0.003`; what is not set is left out."""
    return ", ".join(f"{k} {_plain(v)}" for k, v in sorted(settings.items()) if v not in (None, [])) or MISSING


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        if "level" in value:  # noise
            return " ".join(_plain(v) for v in value.values())
        return f"({_listed(value)})"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
