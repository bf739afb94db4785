"""Options that state the input contract of a file that does not state it itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgetl.commands.study_command import with_options

if TYPE_CHECKING:
    from edgetl.config import InputContract


class _PerChannel(click.ParamType):  # type: ignore[type-arg]  # in some versions of click it takes none
    """The type of an option such as ``0.485,0.456,0.406``, or one number for all three channels."""

    name = "number,number,number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in {1, 3}:
            self.fail(f"{value!r} is not one number or three with commas between them", param, ctx)
        return numbers * (3 // len(numbers))


preprocessing_options = with_options(
    click.option(
        "--preprocessing",
        metavar="NAME|FILE.yaml",
        help="How images become the input of a file that does not say it: imagenet, unit, raw255, symmetric, caffe.",
    ),
    click.option("--mean", type=_PerChannel(), help="Subtracted from each channel, after --scale."),
    click.option("--std", type=_PerChannel(), help="Divides each channel, after --mean."),
    click.option("--scale", type=float, help="Multiplies pixels of 0 to 255.", show_default="1/255"),
    click.option("--bgr", is_flag=True, help="The input's channels are blue, green, red."),
    click.option("--fit", type=click.Choice(["crop", "letterbox", "stretch"]), help="How images get the input's size."),
)
_NAMES = ("preprocessing", "mean", "std", "scale", "bgr", "fit")


def take_contract(values: dict[str, Any]) -> InputContract | None:
    """Take these options out of a command's values and return the input contract that they state; None without any.

    Raises:
        EdgetlError: the name is not known, the file has faults, or a number is out of its range.
    """
    given = {name: values.pop(name) for name in _NAMES}
    name = given.pop("preprocessing")
    color = "bgr" if given.pop("bgr") else None
    stated = {key: value for key, value in {**given, "color": color}.items() if value is not None}
    if name is None and not stated:
        return None
    from pydantic import ValidationError

    from edgetl.config import InputContract, load_contract
    from edgetl.errors import EdgetlError

    base = InputContract() if name is None else load_contract(name)
    try:
        # Made anew, because a copy with changes would not be validated.
        return InputContract(**{**base.model_dump(), **stated})
    except ValidationError as error:
        first = error.errors()[0]
        raise EdgetlError(f"--{first['loc'][0]} {stated[str(first['loc'][0])]}: {first['msg']}") from None
