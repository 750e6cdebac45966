"""The catalogue: every row of the source documents that a study measures, with the published figure and a verdict."""

import re
from dataclasses import dataclass
from typing import Any

from atelier import params
from atelier.report import tables
from atelier.report.claims import foremost
from atelier.report.results import Results

DOCUMENTS = {
    "D0": "Dense nets from scratch, denoising",
    "D1": "Softmax to five layers, regularisation",
    "D2": "Sensors, autoencoders, efficiency",
    "D3": "Lecture notes: the families",
    "D4": "A two-layer net by hand, the variational autoencoder",
}

ABOUT = (
    "Every row of the source documents that a study measures: the published figure beside ours (mean, 95 % interval, "
    "number of seeds), and the verdict on what is claimed about the row. [How long the studies take](timings/index.md)."
)


@dataclass(frozen=True)
class Report:
    """One study that has run: its params, results and settled claims."""

    study: params.Study
    results: Results
    claims: list[dict[str, Any]]


def entries(reports: dict[str, Report]) -> list[dict[str, Any]]:
    """One entry of catalogue.json per (row, study, model).

    The verdict is the row's: it looks at the claims of every study that name the row or one it is part of (D2.1 covers
    D2.1.wide), so two studies of one row agree.
    """
    settled = [claim for report in reports.values() for claim in report.claims if claim["row"]]
    found = []
    for name, report in reports.items():
        for model in report.results.models:
            said = report.study.published.get(model, {})
            measured, exact = report.results.metrics(model), report.results.models[model]["exact"]
            headline = report.results.headline(model)
            wanted = dict.fromkeys([*([headline] if headline else measured), *(m for m in said if m not in exact)])
            known = {
                "published": {m: value for m, value in said.items() if m not in exact},
                "measured": {m: measured[m] for m in wanted if m in measured},
                "exact": {k: {"value": v, "expected": said.get(k), "tolerance": 0} for k, v in sorted(exact.items())},
            }
            for row in report.study.models[model].rows:
                about = [claim for claim in settled if covers(claim["row"], row)]
                judged = {"claims": [c["id"] for c in about], "verdict": foremost([c["verdict"] for c in about])}
                found.append({"id": row, "study": name, "model": model, **known, **judged})
    return sorted(found, key=lambda entry: _natural(entry["id"]))


def covers(claimed: str, row: str) -> bool:
    """Whether a claim about the row `claimed` is about `row`: the same, or a part of it."""
    return row == claimed or row.startswith(claimed + ".")


def markdown(found: list[dict[str, Any]], reports: dict[str, Report], missing: list[tuple[str, str]]) -> str:
    """catalogue.md: one table per document, then claims on rows that no model bears, then studies that have not run."""
    sections = ["# Catalogue", ABOUT]
    for document, title in DOCUMENTS.items():
        rows = [line for e in found if e["id"].split(".")[0] == document for line in _lines(e)]
        if rows:
            columns = ["Row", "Study", "Model", "Metric", "Published", "Measured", "n", "Verdict"]
            sections += [f"## {document}: {title}", tables.table(columns, rows)]
    if not found:
        sections.append("No study that has run names a row.")
    borne = {e["id"] for e in found}
    loose = [
        [claim["row"], _link(name), claim["says"], f"**{claim['verdict']}**"]
        for name, report in reports.items()
        for claim in report.claims
        if claim["row"] and not any(covers(claim["row"], row) for row in borne)
    ]
    if loose:
        sections += ["## Claims on rows that no model bears", tables.table(["Row", "Study", "Says", "Verdict"], loose)]
    if missing:
        lines = [f"- `{study}`, {model}: `make study STUDY={study}`" for study, model in missing]
        sections += ["## Not yet run", "\n".join(lines)]
    return "\n\n".join(sections) + "\n"


def _lines(entry: dict[str, Any]) -> list[list[str]]:
    """A line per metric, measured or published, and per exact count that the source gives."""
    head, verdict = [entry["id"], _link(entry["study"]), entry["model"]], f"**{entry['verdict']}**"
    lines = []
    for metric in dict.fromkeys([*entry["measured"], *entry["published"]]):
        found = entry["measured"].get(metric)
        said, n = tables.published(metric, entry["published"].get(metric)), str(found["n"]) if found else tables.MISSING
        lines.append([*head, f"`{metric}`", said, tables.spread_with_unit(metric, found), n, verdict])
    for name, count in entry["exact"].items():
        if count["expected"] is not None:
            said, ours = tables.count(count["expected"]), tables.count(count["value"])
            same = "equal" if abs(count["value"] - count["expected"]) <= count["tolerance"] else "differs"
            lines.append([*head, name, said, ours, tables.MISSING, f"**{same}**"])
    return lines or [[*head, *[tables.MISSING] * 4, verdict]]


def _link(study: str) -> str:
    return f"[{study}](studies/{study}/index.md)"


def _natural(row: str) -> list[tuple[int, str]]:
    """D0.2 before D0.10."""
    return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|([^\d.]+)", row)]
