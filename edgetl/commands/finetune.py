from __future__ import annotations

import click

from edgetl.commands.options import make_command, option
from edgetl.commands.shared_options import StudyArguments
from edgetl.commands.study_command import run_study


class _FinetuneOptions(StudyArguments):
    quantization_aware: bool = option(
        "Train for INT8: heads on the INT8 trunk's features, tuned layers rounded as INT8 rounds them."
    )


@make_command("finetune", _FinetuneOptions)
def command(options: _FinetuneOptions) -> None:
    """Train the heads of every deployment on the frozen backbone.

    The images go through the backbone once; all heads are fitted together on the cached features.

    \b
    Examples:  edgetl finetune configs/digits.yaml -o runs/digits
               edgetl finetune configs/digits.yaml -o runs/int8 --quantization-aware
    """
    # The search too, which needs the heads alone: its shortlist is a part of the bundle.
    stages = ["index", "finetune", "search"]
    run_study(options.study, options.output, stages, quantization_aware=options.quantization_aware)
    click.echo(options.output / "bundle" / "bundle.json")
