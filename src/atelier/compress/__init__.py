"""A trained net in a small file, as Deep Compression has it (Han et al. 2016): prune, share values, code.

share: few values for many weights; entropy, places: few bits for them; format: the file. Here: nets to files and back.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import checkpoint, files
from atelier.compress import format
from atelier.errors import AtelierError

if TYPE_CHECKING:
    from torch import nn


def write(path: Path, spec: dict[str, Any], model: "nn.Module", coder: str = "range") -> dict[str, int]:
    """Write a net, whole or not at all, exactly as it is; what each part of the file takes, in bytes.

    spec: as a checkpoint has it. What makes the file small, few values other than 0, has to be done to the net before.
    """
    content = dump(spec, model, coder)
    files.write_bytes(path, content)
    return format.ledger(content)


def dump(spec: dict[str, Any], model: "nn.Module", coder: str = "range") -> bytes:
    """What `write` writes."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return format.dump(spec, tensors, coder)


def read(path: Path) -> tuple["nn.Module", dict[str, Any]]:
    """The net in eval mode, and its spec.

    Raises AtelierError if the file is not there, or is not what was written.
    """
    import torch

    try:
        spec, tensors = format.load(Path(path).read_bytes())
    except FileNotFoundError:
        raise AtelierError(f"{path}: not there; write it with atelier.compress.write") from None
    except AtelierError as error:
        raise AtelierError(f"{path}: {error}") from None
    model = checkpoint.build(spec)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return model.eval(), spec
