"""catalogue: reports/studies/*/{metrics,claims}.json -> reports/catalogue.json, reports/catalogue.md; reports/rounded.

Of every study's and experiment's parameters it reads models (their rows) and published.
"""

from atelier import files, params, paths
from atelier.report import catalogue, drawing, results, rounded


def main() -> None:
    """Gather the studies and experiments of params.yaml that have run; name those, and those models, that have not."""
    reports, missing = {}, []
    for name, entry in params.load(families=False).reported.items():
        folder = paths.report(name)
        if all((folder / file).exists() for file in ("metrics.json", "claims.json")):
            found = results.read(folder, name, entry, whole=False)
            reports[name] = catalogue.Report(entry, found, files.read_json(folder / "claims.json"))
            missing += [(name, model) for model in entry.models if model not in found.models]
        else:
            missing.append((name, "every model"))
    rows = catalogue.entries(reports)
    folder = paths.root() / "reports"
    files.write_json(folder / "catalogue.json", rows)
    files.write_text(folder / "catalogue.md", catalogue.markdown(rows, reports, missing))
    drawn = drawing.save(rounded.pictures(reports), folder / "rounded" / "figures")
    files.write_text(folder / "rounded" / "index.md", rounded.page(reports, drawn))
