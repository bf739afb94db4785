"""Options of commands as frozen dataclasses: declared once, shared by inheritance, handed over as one object.

Each field is made by `option` or `argument`; `make_command` gives a command the object, filled from the command line.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

_TYPES: dict[str, Any] = {"Path": click.Path(path_type=Path), "int": int, "float": float, "str": str}


@dataclasses.dataclass(frozen=True)
class CommandOptions:
    """The base of options: every class below it is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)


def option(description: str, *flags: str, **settings: Any) -> Any:
    """A field that an option fills: ``--the-fields-name`` where no ``flags`` are given.

    Its annotation says the type, and that it has to be given where neither None nor a default can take its place. An
    option that may be repeated has the annotation ``tuple[..., ...]``.

    Args:
        description: its line in the command's help.
        flags: such as ``-o``, ``--output``.
        settings: those of `click.option`. Only click knows the default, so that none is written twice.
    """
    return dataclasses.field(metadata={"add": click.option, "flags": flags, "click": {"help": description, **settings}})


def argument(metavar: str) -> Any:
    """A field that a positional argument fills, or all of them where its annotation is ``tuple[..., ...]``."""
    return dataclasses.field(metadata={"add": click.argument, "flags": (), "click": {"metavar": metavar}})


def make_command(name: str, kind: type[CommandOptions]) -> Callable[[Callable[[Any], None]], click.Command]:
    """A decorator that makes a command of a function, which gets the options as one object.

    Help shows the class's own options first, then those of its bases.
    """

    def decorate(function: Callable[[Any], None]) -> click.Command:
        @wraps(function)
        def call(**values: Any) -> None:
            function(kind(**values))

        fields = {field.name: field for field in dataclasses.fields(kind)}
        names = [name for one in kind.__mro__ for name in inspect.get_annotations(one)]
        for field in (fields[name] for name in reversed(names)):  # the one that is applied last stands first
            add, flags = field.metadata["add"], field.metadata["flags"]
            call = add(*(flags or [_flag(field)] if add is click.option else []), field.name, **_settings(field))(call)
        return click.command(name)(call)

    return decorate


def part(options: CommandOptions, kind: type[Any]) -> dict[str, Any]:
    """The values of those options that another dataclass has fields for, by name: a request's, or a base's."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {one.name: getattr(options, one.name) for one in dataclasses.fields(options) if one.name in names}


def refuse(kind: type[CommandOptions], why: str, but: Collection[str] = ()) -> None:
    """Raise a usage error where an option that a dataclass declares stands on the command line.

    Args:
        why: the rest of a sentence that begins with the option, such as ``is for models``.
        but: flags that may stand there.
    """
    context = click.get_current_context()
    for field in dataclasses.fields(kind):
        stated = context.get_parameter_source(field.name) is ParameterSource.COMMANDLINE
        if stated and _flag(field) not in but:
            raise click.UsageError(f"{_flag(field)} {why}")


def _settings(field: dataclasses.Field[Any]) -> dict[str, Any]:
    """What click is told of a field: its settings, and what its annotation says."""
    settings: dict[str, Any] = field.metadata["click"]
    kind = str(field.type)  # a text, because the modules of commands postpone annotations
    if kind == "bool":
        return {**settings, "is_flag": True}
    stated: dict[str, Any] = {"show_default": True} if "default" in settings else {}
    if kind.endswith(", ...]"):
        stated |= {"nargs": -1, "required": True} if field.metadata["add"] is click.argument else {"multiple": True}
    elif "default" not in settings and not kind.endswith(" | None"):
        stated["required"] = True
    name = kind.removesuffix(" | None").removeprefix("tuple[").removesuffix(", ...]")
    return stated | {"type": _TYPES.get(name)} | settings


def _flag(field: dataclasses.Field[Any]) -> str:
    flags = field.metadata["flags"]
    return str(flags[-1]) if flags else f"--{field.name.replace('_', '-')}"
