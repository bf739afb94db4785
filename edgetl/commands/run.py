from __future__ import annotations

from edgetl.commands.options import make_command, part
from edgetl.commands.report import show
from edgetl.commands.shared_options import ProviderOption, StudyArguments, TimingOptions, VerdictOptions
from edgetl.commands.study_command import run_study


class _WholeStudyOptions(StudyArguments, ProviderOption, TimingOptions, VerdictOptions):
    pass


@make_command("run", _WholeStudyOptions)
def command(options: _WholeStudyOptions) -> None:
    """Do a whole study: from images to a verdict.

    Stages that are up to date are not run again, so a run that was killed goes on where it stopped.

    \b
    Example:  edgetl run configs/digits.yaml -o runs/digits
    """
    # Imported here, as in every command: `edgetl run --help` and usage errors wait for none of it.
    from edgetl.stages.run_study import STAGES
    from edgetl.stages.stage import Options

    done = run_study(options.study, options.output, list(STAGES), Options(**part(options, Options)))
    show(done.directory, options)
