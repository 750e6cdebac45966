"""download: a pinned source -> data/raw/<dataset>/. fashion-mnist: 31 MB, mnist: 12 MB; digits come with a package."""

import os

from atelier import paths
from atelier.data import sources


def main(name: str) -> None:
    """Fetch what is not there as pinned. ATELIER_MIRROR, a folder or URL, is tried before the public hosts."""
    mirror = sources.mirror(os.environ.get("ATELIER_MIRROR"), paths.home())
    fetched = sources.fetch(name, paths.raw(name), mirror)
    print(f"{name}: {len(fetched)} of {len(sources.get(name).files)} files fetched, all as pinned")
