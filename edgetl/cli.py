"""The command table, and the only place that turns errors into exit codes.

Exit codes: 0 ok, 1 the user's input or environment, 2 usage, 3 a bug in edgetl, 4 budget not met or result unstable
under ``--strict``, 128 + N ended by signal N: 130 interrupted, 141 when nobody reads the output any more.
"""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from edgetl import __version__

# Help is here, not only in the command's module: `edgetl --help` then imports none of them.
COMMANDS: dict[str, str] = {
    "run": "Do a whole study: from images to a verdict.",
    "finetune": "Train the heads of every deployment on the frozen backbone.",
    "export": "Write a study's ONNX graphs, prepared in every precision.",
    "import-darknet": "Write a Darknet network as one ONNX file.",
    "prepare": "Write one ONNX file in FP16 or INT8.",
    "compare": "Find the layers and images where two precisions of a network differ.",
    "fuse": "Merge ONNX files that share layers into one.",
    "build-engine": "Build engines for this machine, or one for another.",
    "evaluate": "Measure the accuracy of every deployment on the test set.",
    "profile": "Measure the latency of every deployment, or of ONNX files, side by side.",
    "profile-remote": "Build and profile on other machines through ssh, all at once.",
    "compare-profiles": "Show profiles of several devices in one table.",
    "estimate": "Estimate latency and memory on Jetsons that are not at hand.",
    "predict": "Print the labels or boxes of images, or draw them.",
    "report": "Decide which candidate to ship, and write results.json and report.html.",
    "inspect": "Tell what a graph, an engine, a bundle or a run directory holds.",
    "doctor": "Tell what is on this machine, and how to install what is missing.",
}
_INTERRUPTED = "interrupted; what was finished is kept, run the same command again to go on"


class _LazyGroup(click.Group):
    """A group of commands that imports a command's module only when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"edgetl.commands.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # only a mistyped command pays for it

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgetl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Find out which vision models to ship to a small device: one combined model or several specialists, in which
    precision, on which trunk. edgetl trains the candidates, builds their engines, measures them side by side and gives
    a verdict with the evidence.

    \b
    Start with:  edgetl run STUDY.yaml -o DIR
    """
    del debug


def main(args: list[str] | None = None) -> None:
    """Run a command and exit."""
    arguments = sys.argv[1:] if args is None else args
    sys.exit(_run(arguments, debug="--debug" in arguments))


class _Ended(KeyboardInterrupt):
    """A signal that asks the process to end; code that cleans up after Ctrl-C cleans up after it too."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise in the block, unless they are ignored, as SIGHUP is under nohup."""

    def end(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                # Some compiled modules crash when an exception meets them while they are imported.
                signal.signal(number, signal.SIG_DFL)
                sys.stderr.write(f"error: {_INTERRUPTED}\n")
                signal.raise_signal(number)
            frame = frame.f_back
        raise _Ended(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    caught = {one: handler for one, handler in before.items() if handler in usual}
    for one in caught:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in caught.items():
            signal.signal(one, handler)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        with _signals_raise():
            result: Any = cli.main(arguments, prog_name="edgetl", standalone_mode=False)
    except SystemExit:  # outside its standalone mode, click raises it only when the reader closed the pipe
        return 128 + signal.SIGPIPE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:
        if (number := _signal_behind(error)) is not None:
            return _fail(128 + number, _INTERRUPTED)
        if debug:
            traceback.print_exc()
        return _explain(error)
    return result if isinstance(result, int) else 0


def _signal_behind(error: BaseException | None) -> int | None:
    """The signal that led to an error, if any."""
    # click raises Abort in place of it, and an interrupted import often an ImportError.
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return error.number if isinstance(error, _Ended) else signal.SIGINT
        error = error.__cause__ or error.__context__
    return None


def _explain(error: Exception) -> int:
    from edgetl.errors import EdgetlError, NotMetError, StudyError

    if isinstance(error, StudyError) and len(error.faults) > 1:
        for fault in error.faults:
            click.echo(f"{error.source}: {fault}", err=True)
        return _fail(1, f"{error.source} has {len(error.faults)} faults, listed above")
    if isinstance(error, EdgetlError):
        return _fail(4 if isinstance(error, NotMetError) else 1, str(error))
    if isinstance(error, MemoryError):
        return _fail(1, "out of memory; close other programs or use smaller images")
    kind = f"{type(error).__name__}: {error}".replace("\n", " ")
    return _fail(3, f"a bug in edgetl: {kind}; run again with edgetl --debug ... and report the traceback")


def _fail(code: int, message: str) -> int:
    click.echo(f"error: {message}", err=True)
    return code
