"""report: what evaluate and prune left in reports/studies/<study>/ -> index.md, claims.json, figures/.

Of the study's parameters it reads asks, claims, note and published.
"""

from atelier import files, params, paths
from atelier.report import claims, figures, page, results


def main(study: str) -> None:
    """Settle the study's claims, draw its figures and write its page."""
    entry = params.load(families=False).study(study)
    folder = paths.report(study)
    found = results.read(folder, study, entry.models)
    found.check_published(entry.published)
    settled = claims.settle(found, entry.claims)
    files.write_json(folder / "claims.json", settled)
    pictures = figures.draw(found, entry.published, folder / "figures")
    examples = (folder / "examples.png").exists()
    files.write_text(folder / "index.md", page.page(found, entry, settled, pictures, examples))
