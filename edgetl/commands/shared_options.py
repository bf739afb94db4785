"""Options and groups of them that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from edgetl.commands.options import CommandOptions, argument, option


def fraction(text: str) -> float:
    """The number that an option such as ``5%`` or ``0.05`` states."""
    try:
        number = float(text.strip().removesuffix("%")) / (100.0 if text.strip().endswith("%") else 1.0)
    except ValueError:
        number = -1.0
    if not 0.0 < number < 1.0:  # nan is refused too
        raise click.BadParameter(f"{text!r} is no fraction above 0 % and below 100 %; write it as 5% or 0.05")
    return number


class StudyArguments(CommandOptions):
    """A study and its run directory."""

    study: Path = argument("STUDY.yaml")
    output: Path = option("The study's run directory.", "-o", "--output")


class ProviderOption(CommandOptions):
    """Where ONNX Runtime runs."""

    provider: str = option("Where ONNX Runtime runs.", type=click.Choice(["cpu", "cuda", "tensorrt"]), default="cpu")


class VerdictOptions(CommandOptions):
    """How the verdict is printed and judged."""

    strict: bool = option("Exit with 4 if the budget is not met or the result is unstable.")
    as_json: bool = option("Print results.json instead of the table.", "--json")


class TimingOptions(CommandOptions):
    """How latency is measured."""

    threads: int = option("Threads of an engine.", type=click.IntRange(0), default=0, show_default="one per core")
    seconds: float = option("How long to measure latency.", type=click.FloatRange(0.1), default=10.0)


class MeasuringOptions(TimingOptions):
    """What `edgetl profile` measures, here and on other machines."""

    width: float = option("End early when intervals are narrower.", type=fraction, metavar="PERCENT", default="1%")
    layers: bool = option("Time every layer.")
    no_energy: bool = option("Leave out energy, which takes as long again as latency.")


class ModelRunOptions(CommandOptions):
    """How `edgetl profile` runs models, here and on other machines."""

    batch: int = option("Images of one inference.", type=click.IntRange(1), default=1)
    cuda_graph: bool = option("Run engines as CUDA graphs, checked against the plain run.")
    spin_wait: bool = option("Wait for engines without sleeping.")
    no_transfers: bool = option("Leave engines' inputs and outputs on the device.")
    share_scratch: bool = option("Let engines share their scratch memory.")


class GateOptions(CommandOptions):
    """One more model, and how much slower than it the others may be."""

    against: Path | None = option("One more model, to compare with.")
    fail_if_slower: float | None = option(
        "Exit with 4 if a model is proven slower than --against.", type=fraction, metavar="PERCENT"
    )

    def files(self, models: tuple[Path, ...]) -> tuple[Path, ...]:
        """The models with the one to compare with behind them."""
        if self.fail_if_slower is not None and self.against is None:
            raise click.UsageError("--fail-if-slower needs --against MODEL")
        return models if self.against is None else (*models, self.against)


class JudgingOptions(CommandOptions):
    """How a profile is printed and judged."""

    strict: bool = option("Exit with 4 if a result is UNSTABLE or undecided.")
    as_json: bool = option("Print the figures in the shape of results.json.", "--json")


class AccuracyOptions(CommandOptions):
    """How much accuracy INT8 may lose, and on which images."""

    max_accuracy_drop: float | None = option(
        "Exclude layers from INT8 until it loses no more accuracy than this: 0.01 is 1 %.",
        type=click.FloatRange(0.0, 1.0),
    )
    eval_images: Path | None = option(
        "Labelled images to measure accuracy on: folders by label; for a detector COCO's .json, YOLO's .yaml, or VOC."
    )
