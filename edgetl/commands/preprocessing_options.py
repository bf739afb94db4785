"""Options that state the input contract of a file that does not state it itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgetl.commands.options import CommandOptions, option

if TYPE_CHECKING:
    from edgetl.config import InputContract


def _per_channel(text: str) -> tuple[float, ...]:
    """The number of each channel that an option such as ``0.485,0.456,0.406`` states; one number is all three."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, 3}:
        raise click.BadParameter(f"{text!r} is not one number or three with commas between them")
    return numbers * (3 // len(numbers))


class PreprocessingOptions(CommandOptions):
    """How images become a model's input."""

    preprocessing: str | None = option(
        "How images become the input of a file that does not say it: imagenet, unit, raw255, symmetric, caffe.",
        metavar="NAME|FILE.yaml",
    )
    mean: tuple[float, ...] | None = option(
        "Subtracted from each channel, after --scale.", type=_per_channel, metavar="N,N,N"
    )
    std: tuple[float, ...] | None = option("Divides each channel, after --mean.", type=_per_channel, metavar="N,N,N")
    scale: float | None = option("Multiplies pixels of 0 to 255.", show_default="1/255")
    bgr: bool = option("The input's channels are blue, green, red.")
    fit: str | None = option("How images get the input's size.", type=click.Choice(["crop", "letterbox", "stretch"]))

    def contract(self) -> InputContract | None:
        """The input contract that these options state; None where none of them was given.

        Raises:
            EdgetlError: the name is not known, the file has faults, or a number is out of its range.
        """
        values = asdict(self) | {"color": "bgr" if self.bgr else None}
        stated = {key: values[key] for key in ("mean", "std", "scale", "color", "fit") if values[key] is not None}
        if self.preprocessing is None and not stated:
            return None
        from pydantic import ValidationError

        from edgetl.config import InputContract, load_contract
        from edgetl.errors import EdgetlError

        base = InputContract() if self.preprocessing is None else load_contract(self.preprocessing)
        try:
            # Made anew, because a copy with changes would not be validated.
            return InputContract(**{**base.model_dump(), **stated})
        except ValidationError as error:
            first = error.errors()[0]
            raise EdgetlError(f"--{first['loc'][0]} {stated[str(first['loc'][0])]}: {first['msg']}") from None
