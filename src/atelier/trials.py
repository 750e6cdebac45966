"""Random search (Bergstra and Bengio 2012): in a study, a model with `draws` stands for so many, drawn from its ranges.

    dense: {family: mlp, draws: {count: 20, seed: 0}, hidden: {among: [[300, 100], [800, 400]]},
            train: {lr: {from: 0.0003, to: 0.01}}}

stands for dense-01 to dense-20. `among`: one of these, all as likely; `from`, `to`: a number whose logarithm is evenly
spread, whole if both ends are, else of three digits. A draw depends on seed, model, number and key alone, so that more
draws, or another range, leave the others as they are.
"""

import random
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from atelier import strict
from atelier.strict import Strict


class Draws(Strict):
    count: Annotated[int, Field(ge=1, le=99)]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Among(Strict):
    among: Annotated[tuple[Any, ...], Field(min_length=1)]

    def at(self, place: float) -> Any:
        """The value at a place in [0, 1)."""
        return self.among[int(place * len(self.among))]


class Between(Strict):
    low: Annotated[float, Field(gt=0, alias="from")]
    high: Annotated[float, Field(gt=0, alias="to")]

    def at(self, place: float, whole: bool) -> float:
        """The value at a place in [0, 1), a whole number or one of three digits."""
        found = self.low * (self.high / self.low) ** place
        rounded = min(max(float(f"{found:.3g}"), self.low), self.high)
        return round(found) if whole else rounded

    @model_validator(mode="after")
    def _rises(self) -> "Between":
        if self.low >= self.high:
            raise ValueError(f".from is {self.low:g}; give less than to ({self.high:g})")
        return self


def expanded(document: Any) -> Any:
    """The document with the trials in the place of every model that has `draws`; as it was where there is none.

    Raises ValueError, in one line, for draws or ranges that are none. The rest of a document is not looked at.
    """
    studies = document.get("studies") if isinstance(document, Mapping) else None
    if not isinstance(studies, Mapping):
        return document
    found = {key: _study(study, f".studies.{strict.spelt(key)}") for key, study in studies.items()}
    return strict.frozen({**document, "studies": found})


def _study(study: Any, where: str) -> Any:
    models = study.get("models") if isinstance(study, Mapping) else None
    if not isinstance(models, Mapping):
        return study
    found: dict[Any, Any] = {}
    for name, entry in models.items():
        searched = isinstance(entry, Mapping) and "draws" in entry
        new = _trials(name, entry, f"{where}.models.{strict.spelt(name)}") if searched else {name: entry}
        if twice := found.keys() & new.keys():
            raise ValueError(f"{where}.models.{min(twice)} is a trial's name too; rename one")
        found |= new
    return {**study, "models": found}


def _trials(name: str, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    draws = strict.checked(Draws, entry["draws"], f"{where}.draws")
    ranged = {key: value for key, value in entry.items() if key != "draws"}
    return {
        f"{name}-{i:02d}": {**_drawn(ranged, where, f"{draws.seed} {name} {i}"), "trial_of": name}
        for i in range(1, draws.count + 1)
    }


def _drawn(value: Any, where: str, key: str) -> Any:
    """The value with a draw for every range in it; `key` is all that a draw depends on."""
    if not isinstance(value, Mapping):
        return value
    if "among" in value:
        return strict.checked(Among, value, where).at(random.Random(key).random())
    if "from" in value or "to" in value:
        whole = all(type(end) is int for end in value.values())
        return strict.checked(Between, value, where).at(random.Random(key).random(), whole)
    return {k: _drawn(v, f"{where}.{strict.spelt(k)}", f"{key} {k}") for k, v in value.items()}
