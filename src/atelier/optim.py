"""Optimizers by name, and learning-rate schedules as functions of progress."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import optim


@dataclass(frozen=True)
class Optimizer:
    """An optimizer yet without parameters: a family calls it on the parameters it should step."""

    name: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __call__(self, parameters: Iterable[torch.nn.Parameter]) -> optim.Optimizer:
        common = {"lr": self.lr, "weight_decay": self.weight_decay}
        match self.name:
            case "sgd":
                return optim.SGD(parameters, fused=True, **common)
            case "momentum":
                return optim.SGD(parameters, momentum=self.momentum, fused=True, **common)
            case "rmsprop":
                return optim.RMSprop(parameters, **common)
            case "adam":
                return optim.Adam(parameters, fused=True, **common)
            case "adamw":
                return optim.AdamW(parameters, fused=True, **common)
        raise ValueError(f"there is no optimizer {self.name}")


def schedule_factor(schedule: str, progress: float) -> float:
    """What the learning rate is multiplied by when `progress` in [0, 1) of all steps is done.

    A function of progress alone, so that a resumed run needs no scheduler state. one-cycle is linear up from 1/25 over
    the first 30 % and linear down to zero (Smith and Topin 2018); step divides by ten at 1/2 and at 3/4.
    """
    match schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "one-cycle":
            return 0.04 + 0.96 * progress / 0.3 if progress < 0.3 else (1.0 - progress) / 0.7
        case "step":
            return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    raise ValueError(f"there is no schedule {schedule}")
