"""Less data on purpose: the first items of a training split."""

import torch

from atelier.data.items import Items, Pixels
from atelier.errors import AtelierError


def first(seen: Items, count: int | None) -> Items:
    """The first `count` items, all of them if None. Sources keep their items in no order of class."""
    if count is None:
        return seen
    if count > len(seen):
        raise AtelierError(
            f"params.yaml: a recipe's items is {count}, but the training split has {len(seen)}; give less"
        )

    def cut(x: Pixels | torch.Tensor) -> Pixels | torch.Tensor:
        if isinstance(x, torch.Tensor):
            return x[:count]
        rows = torch.arange(count, device=x.stored.device) if x.rows is None else x.rows[:count]
        return Pixels(x.stored, x.scale, rows)

    x = cut(seen.x)
    return Items(x, x if seen.clean is seen.x else cut(seen.clean), seen.y[:count])
