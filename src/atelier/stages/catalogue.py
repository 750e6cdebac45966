"""catalogue: reports/studies/*/{metrics,claims}.json -> reports/catalogue.json, reports/catalogue.md.

Of every study's parameters it reads models (their rows) and published.
"""

from atelier import files, params, paths
from atelier.report import catalogue, results


def main() -> None:
    """Gather the studies of params.yaml that have run; name those, and those models, that have not."""
    reports, missing = {}, []
    for name, study in params.load(families=False).studies.items():
        folder = paths.report(name)
        if all((folder / file).exists() for file in ("metrics.json", "claims.json")):
            found = results.read(folder, name, study.models, whole=False)
            reports[name] = catalogue.Report(study, found, files.read_json(folder / "claims.json"))
            missing += [(name, model) for model in study.models if model not in found.models]
        else:
            missing.append((name, "every model"))
    rows = catalogue.entries(reports)
    folder = paths.root() / "reports"
    files.write_json(folder / "catalogue.json", rows)
    files.write_text(folder / "catalogue.md", catalogue.markdown(rows, reports, missing))
