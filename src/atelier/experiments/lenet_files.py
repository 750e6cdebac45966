"""LeNet-5 in files, by the steps of Deep Compression (Han et al. 2016) and by those of small-files: measured as there,
but an entry of its own, as the nets of that one train for hours."""

from typing import Any

from atelier.data.store import Store
from atelier.experiments import small_files
from atelier.experiments.small_files import USES, measure, text
from atelier.report.drawing import Plans

__all__ = ["USES", "measure", "pictures", "text"]


def pictures(store: Store, models: dict[str, dict[str, Any]], series: dict[str, list[Any]]) -> Plans:
    """Those of small-files. Of nets that differ in their coder alone the frontier shows one: their points coincide."""
    shown: dict[str, dict[str, Any]] = {}
    for model, settings in models.items():
        if {**settings, "coder": None} not in [{**other, "coder": None} for other in shown.values()]:
            shown[model] = settings
    frontier = small_files.pictures(store, shown, series)["frontier.png"]
    return small_files.pictures(store, models, series) | {"frontier.png": frontier}
