"""The report of a study: claims settled, tables, figures and the page that holds them; the catalogue of all studies."""


def summary_text(study: str) -> str:
    """A study in a few lines for a terminal: its figures, where its report lies, how to look at the runs.

    Raises AtelierError if the study is unknown or has not run.
    """
    from atelier import params, paths
    from atelier.report import page, results

    entry = params.load(families=False).entry(study)
    folder = paths.report(study)
    lines = page.summary(results.read(folder, study, entry.models))
    where = (folder / "index.md").relative_to(paths.root())
    return f"{entry.asks}\n\n{lines}\n\nreport: {where}\nruns:   make ui opens them in MLflow"
