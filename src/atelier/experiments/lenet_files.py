"""LeNet-5 in files, by the steps of Deep Compression (Han et al. 2016) and by those of small-files: measured as there,
but an entry of its own, as the nets of that one train for hours."""

from atelier.experiments.small_files import USES, measure, pictures, text

__all__ = ["USES", "measure", "pictures", "text"]
