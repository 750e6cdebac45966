"""report, experiment_report: what evaluate and prune, or experiment, left in reports/studies/<name>/ -> index.md,
claims.json, figures/; and beside them the pictures of what it took, which are no output.

Of the entry's parameters it reads asks, claims, note and published.
"""

from atelier import files, params, paths, timings
from atelier.report import claims, drawing, figures, page, results


def main(name: str) -> None:
    """Settle the claims of a study or an experiment, draw its figures and write its page."""
    entry = params.load(families=False).entry(name)
    folder = paths.report(name)
    found = results.read(folder, name, entry)
    found.check_published(entry.published)
    settled = claims.settle(found, entry.claims)
    files.write_json(folder / "claims.json", settled)
    if isinstance(entry, params.Study):
        pictures = figures.draw(found, entry, folder / "figures")
        text = page.page(found, entry, settled, pictures, (folder / "examples.png").exists())
    else:
        pictures = drawing.save(figures.of_experiment(found, entry), folder / "figures")
        about = files.read_json(folder / "measured" / "about.json")
        text = page.experiment(found, entry, settled, pictures, about)
    files.write_text(folder / "index.md", text)
    timings.settle(paths.timings(name), found, entry.claims)
