"""Strict documents: YAML in; frozen, typed objects out, or one line that says what is wrong, where, and what would do.

Checks raise ValueError. A single value's reads on after "<place> is <value>; ": "give each once". A whole model's reads
on after its place: ".patience is 5; it needs hold_out: true".
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError

from atelier.errors import nearest


class FrozenDict(dict):
    """A dict that refuses change; it still compares, prints and pickles as one."""

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("parameters are frozen; edit params.yaml")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple:
        return FrozenDict, (dict(self),)


class Strict(BaseModel):
    """Frozen, and strict about types: only a whole number may stand for another type, a real number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in value if isinstance(value, dict) else ():
            if key not in known and (cls.model_config["extra"] == "forbid" or not isinstance(key, str)):
                raise ValueError(f".{spelt(key)} is not a known key; {nearest(key, known)}")
        return value


def like(pattern: str, what: str) -> AfterValidator:
    """For text that must match; `what` describes it."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"give {what}")
        return text

    return AfterValidator(check)


def one_of(allowed: Iterable[str], text: str) -> str:
    """The text, if it is allowed."""
    if text not in allowed:
        raise ValueError(nearest(text, allowed))
    return text


def once(values: tuple) -> tuple:
    """The values, if no two are equal."""
    if len(set(values)) < len(values):
        raise ValueError("give each once")
    return values


T = TypeVar("T")
V = TypeVar("V")
Several = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(once)]
Table = Annotated[dict[T, V], AfterValidator(FrozenDict)]
FilledTable = Annotated[dict[T, V], Field(min_length=1), AfterValidator(FrozenDict)]


def read(path: Path) -> Any:
    """The document, frozen; ValueError, in one line, if it is no YAML."""
    try:
        document = frozen(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"cannot be read in {path.parent} ({error.strerror}); run in the project folder") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text; save it as UTF-8") from None
    except DuplicateKeyError as error:
        key = re.search(r'duplicate key "(.*?)" with value', error.problem, re.DOTALL)[1]
        line = error.problem_mark.line + 1
        raise ValueError(f"line {line}: the key {spelt(key)} stands there a second time; keep one") from None
    except RecursionError:
        raise ValueError("is nested too deep, or an alias in it holds itself; write it flatter") from None
    except (YAMLError, ValueError, LookupError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(f"{f'line {mark.line + 1}: ' if mark else ''}is not valid YAML: {reason}") from None
    if document is None:
        raise ValueError("is empty; give keys with values")
    return document


def frozen(value: Any) -> Any:
    """The same with tuples for lists and FrozenDicts for dicts, all the way down."""
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(inner) for key, inner in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def checked(schema: type[BaseModel], document: Any, where: str = "") -> Any:
    """The document as an object of the schema; ValueError, in one line that begins with `where`, at the first fault."""
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        raise ValueError(where + _explain(error, document)) from None


_WANTS = {  # what to give instead, by pydantic's name for the fault
    "bool_type": "true or false",
    "dict_type": "keys with values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:.10g}",
    "greater_than_equal": "{ge:.10g} or more",
    "int_type": "a whole number",
    "less_than": "less than {lt:.10g}",
    "less_than_equal": "{le:.10g} or less",
    "model_type": "keys with values",
    "string_type": "text, in quotes",
    "too_long": "a list of {max_length}",
    "too_short": "{min_length} or more entries",
    "tuple_type": "a list",
}
_KEY = "[key]"  # ends pydantic's location of a fault in a key


def _explain(error: ValidationError, document: Any) -> str:
    """The first fault. A union reports all its branches: those that got deepest into the document speak."""
    faults = [(_place(fault, document), fault) for fault in error.errors(include_url=False)]
    first = faults[0][0]
    place = max((place for place, _ in faults if place[: len(first)] == first), key=len)
    told = [fault for at, fault in faults if at == place]
    given = told[0]["input"]
    if told[0]["type"] == "missing":
        near = get_close_matches(str(place[-1]), map(str, given), n=1, cutoff=0.7)
        return f"{_path(place)} is missing; {f'did you mean it by {near[0]}?' if near else 'it has no default'}"
    reason = next((str(fault["ctx"]["error"]) for fault in told if fault["type"] == "value_error"), None)
    if reason and isinstance(given, dict):
        return _path(place) + reason
    words = [word for fault in told if fault["type"] == "literal_error" for word in _words(fault)]
    wants = [_want(fault) for fault in told if fault["type"] not in ("literal_error", "value_error")]
    reason = reason or (nearest(given, words + wants) if words else f"give {', or '.join(wants)}")
    if place[-1:] == (_KEY,):
        return f"{_path(place[:-2])} has the key {shown(given)}; {reason}"
    text = "the text " if isinstance(given, str) and not words and "number" in reason else ""
    return f"{_path(place)} is {text}{shown(given)}; {reason}"


def _place(fault: Mapping[str, Any], document: Any) -> tuple:
    """The keys that lead to a fault: those of pydantic's location that the document holds. The rest name branches."""
    place: tuple = ()
    for part in fault["loc"]:
        with suppress(LookupError, TypeError):
            document, place = document[part], (*place, part)
    named = fault["type"] == "missing" or fault["loc"][-1:] == (_KEY,)
    return (*place, fault["loc"][-1]) if named else place


def _path(place: tuple) -> str:
    return "".join(f".{spelt(key)}" for key in place)


def _words(fault: Mapping[str, Any]) -> list[str]:
    return [word.strip("'") for word in re.split(", | or ", fault["ctx"]["expected"])]


def _want(fault: Mapping[str, Any]) -> str:
    return _WANTS.get(fault["type"], "a value of another kind").format(**fault.get("ctx", {}))


def spelt(key: Any) -> str:
    """A key as an error shows it, on one line."""
    return key if isinstance(key, str) and key.isprintable() else repr(key)


def shown(value: Any) -> str:
    """A value as it could stand in the document, on one line, cut short."""
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
