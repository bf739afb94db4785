"""Read YAML files into validated models, and report all faults at once, each with its line and key."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import yaml
from pydantic import ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from edgetl.errors import EdgetlError, StudyError, did_you_mean
from edgetl.record import Record

# Far beyond any study; a few lines of aliases can unfold to billions of values.
_MOST_VALUES = 100_000
_LONGEST_VALUE = 1000
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, lone surrogates, line and paragraph separators


class Settings(Record):
    """A section of a file: unknown keys, wrong types and NaN are faults. ``FORMER_KEYS`` maps old keys to new ones."""

    FORMER_KEYS: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


_Model = TypeVar("_Model", bound=Settings)


def load_yaml(path: Path, model: type[_Model]) -> _Model:
    """Read and validate a file.

    Raises:
        StudyError: the file has faults; it lists all, each with its line and key.
        EdgetlError: the file cannot be read or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EdgetlError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EdgetlError(f"{path} cannot be read: {error}") from error
    lines: dict[tuple[str, ...], int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        duplicates = list(_index_lines(node, (), lines)) if node is not None else []
        content = yaml.safe_load(text)
    except Exception as error:  # a value that its tag does not fit lets PyYAML raise whatever Python does
        raise EdgetlError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise EdgetlError(f"{path} holds {type(content).__name__}, expected a mapping of keys such as name and data")
    try:
        result = model.model_validate(_tuples(content))
    except ValidationError as error:
        faults = duplicates + [_explain(detail, lines, model) for detail in error.errors()]
        raise StudyError(str(path), faults) from None
    if duplicates:
        raise StudyError(str(path), duplicates)
    return result


def validated(content: Mapping[str, Any], model: type[_Model], name: str) -> _Model:
    """A model of values that come from Python, where lists serve as tuples.

    Raises:
        StudyError: values have faults; it lists all, each with its key.
    """
    try:
        return model.model_validate(_tuples(dict(content)))
    except ValidationError as error:
        raise StudyError(name, [_explain(detail, None, model) for detail in error.errors()]) from None


def _index_lines(node: yaml.Node, at: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Iterator[str]:
    """Record the line of every key in ``lines``; yield a fault for each key that a mapping holds twice.

    Raises:
        ValueError: a value cannot be shown in one line, or aliases unfold to too many values.
    """
    lines.setdefault(at, node.start_mark.line + 1)
    if len(lines) > _MOST_VALUES:
        raise ValueError(f"it unfolds to more than {_MOST_VALUES} values")
    if isinstance(node, yaml.ScalarNode):
        _refuse_unprintable(node)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                _refuse_unprintable(key)
            name = str(key.value)
            below = (*at, name)
            if name in seen:
                yield f"line {key.start_mark.line + 1}: {'.'.join(below)} is given twice"
            seen.add(name)
            lines[below] = key.start_mark.line + 1
            yield from _index_lines(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _index_lines(item, (*at, str(position)), lines)


def _refuse_unprintable(node: yaml.ScalarNode) -> None:
    # Values end up in messages, file names and JSON.
    if len(node.value) > _LONGEST_VALUE:
        raise ValueError(f"line {node.start_mark.line + 1}: a value has {len(node.value)} characters")
    if any(unicodedata.category(character) in _UNPRINTABLE for character in node.value):
        raise ValueError(f"line {node.start_mark.line + 1}: {node.value!r} holds a control character")


def _tuples(value: Any) -> Any:
    """A value with its lists turned into tuples: strict models take no list for a tuple."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    return value


def _explain(detail: ErrorDetails, lines: Mapping[tuple[str, ...], int] | None, model: type[Settings]) -> str:
    location = tuple(str(part) for part in detail["loc"] if part != "[key]")
    if lines is None:
        return f"{'.'.join(location) or 'it'} {_fault(detail, model, location)}"
    # For a union, pydantic appends the type that it tried to the location: the longest prefix in the file is the key.
    known = next((location[:n] for n in range(len(location), 0, -1) if location[:n] in lines), ())
    missing = detail["type"] == "missing"
    shown = location if missing else known
    line = lines.get(known or (), 1)
    key = ".".join(shown) or "the file"
    return f"line {line}: {key} {_fault(detail, model, location)}"


def _fault(detail: ErrorDetails, model: type[Settings], location: tuple[str, ...]) -> str:
    kind, found = detail["type"], detail["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        section, key = _section_at(model, location[:-1]), location[-1]
        if section is not None and key in section.FORMER_KEYS:
            return f"is now called {section.FORMER_KEYS[key]}"
        return f"is not a known key{did_you_mean(key, list(section.model_fields) if section else [])}"
    if kind == "literal_error":
        choices = str(detail.get("ctx", {}).get("expected", ""))
        words = choices.replace("'", "").replace(" or ", ", ").split(", ")
        return f"is {found!r}, expected {choices}{did_you_mean(str(found), words)}"
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"is {found!r}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _section_at(model: type[Settings], location: tuple[str, ...]) -> type[Settings] | None:
    """The model at a location; None where there is no section."""
    for part in location:
        field = model.model_fields.get(part)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), None)
        if section is None:
            return None
        model = section
    return model
