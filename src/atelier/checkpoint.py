"""A trained model on disk: what it is (spec.json), its weights and their SHA-256, written whole or not at all."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import families, files
from atelier.errors import AtelierError

if TYPE_CHECKING:  # whoever only asks whether weights are intact need not wait for torch
    from torch import Tensor, nn


def save(folder: Path, spec: dict[str, Any], model: "nn.Module") -> None:
    """spec: family, shape, classes, settings, cost. The spec comes last: a folder without one holds no model."""
    from safetensors.torch import save as dump_tensors

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = dump_tensors(tensors)
    files.write_bytes(folder / "weights.safetensors", content)
    files.write_text(folder / "weights.sha256", hashlib.sha256(content).hexdigest() + "\n")
    files.write_json(folder / "spec.json", spec)


def load(folder: Path) -> tuple["nn.Module", dict[str, Any]]:
    """The model in eval mode, and its spec.

    Raises AtelierError if the weights are not those that were written.
    """
    spec = files.read_json(folder / "spec.json")
    model = build(spec)
    model.load_state_dict(read_weights(folder))
    return model.eval(), spec


def digest(folder: Path) -> str:
    """The SHA-256 of the weights, as it stands beside them."""
    return (folder / "weights.sha256").read_text().strip()


def read_weights(folder: Path) -> dict[str, "Tensor"]:
    from safetensors.torch import load as load_tensors

    return load_tensors(_verified(folder))


def intact(folder: Path) -> bool:
    """Whether the weights are there and are those that were written."""
    try:
        _verified(folder)
    except AtelierError:
        return False
    return True


def _verified(folder: Path) -> bytes:
    path = folder / "weights.safetensors"
    try:
        content, expected = path.read_bytes(), (folder / "weights.sha256").read_bytes().strip()
    except FileNotFoundError as error:
        raise AtelierError(f"{error.filename}: not there; run the train stage again") from None
    if hashlib.sha256(content).hexdigest().encode() != expected:
        raise AtelierError(f"{path}: damaged, its SHA-256 is not the one beside it; delete the folder and train again")
    return content


def build(spec: dict[str, Any], **keywords: Any) -> "nn.Module":
    """A net with fresh weights from a spec. Lists in a spec read from JSON stand for tuples."""
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in spec["settings"].items()}
    return families.load(spec["family"])(tuple(spec["shape"]), spec["classes"], **settings, **keywords)
