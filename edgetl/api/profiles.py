"""Latencies from Python: what `edgetl profile` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgetl.api.models import AnyPath, LoadedEngine, Model, path_of
from edgetl.api.progress import Progress, reporter_of
from edgetl.api.studies import frame
from edgetl.artifacts.results import Comparison, Latency
from edgetl.artifacts.results import Profile as ProfileRecord
from edgetl.engine.options import RunOptions
from edgetl.errors import EdgetlError, did_you_mean
from edgetl.stages.measuring import StoppingRule
from edgetl.stages.profile_files import ProfileRequest, profile_files

if TYPE_CHECKING:
    from pandas import DataFrame


class ProfileResult:
    """Latency, memory and energy of several engines, measured side by side. ``record`` holds all figures."""

    def __init__(self, record: ProfileRecord) -> None:
        self.record = record

    def latency(self, name: str) -> Latency:
        """Milliseconds of one inference, with the interval of the median.

        Raises:
            EdgetlError: nothing of that name was measured.
        """
        known = {one.name: one.latency_ms for one in self.record.deployments}
        self._refuse_unknown(name)
        latency = known[name]
        assert latency is not None, "plain files are always measured"
        return latency

    def ratio(self, a: str, b: str) -> Comparison:
        """How many times as long a takes as b: ``ratio`` with its 99 % interval ``low`` to ``high``.

        ``why_unstable`` is a sentence where the ratio drifted, and proves nothing.

        Raises:
            EdgetlError: nothing of that name was measured, or both are the same.
        """
        self._refuse_unknown(a)
        self._refuse_unknown(b)
        if a == b:
            raise EdgetlError(f"{a!r} cannot be compared with itself; give two names")
        pairs = [pair for pair in self.record.comparisons if pair.metric == "latency"]
        pair = next(pair for pair in pairs if {pair.a, pair.b} == {a, b})
        if pair.a == a:
            return pair
        assert pair.ratio is not None, "a comparison of latencies has a ratio"
        # The median of a ratio, and its bounds, turn into those of its inverse.
        return pair.replaced(a=a, b=b, ratio=1 / pair.ratio, low=1 / pair.high, high=1 / pair.low)

    def to_frame(self) -> DataFrame:
        """A pandas data frame with a row for each engine.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return frame(self.record.deployments)

    def _refuse_unknown(self, name: str) -> None:
        names = [one.name for one in self.record.deployments]
        if name not in names:
            raise EdgetlError(f"{name!r} was not measured{did_you_mean(name, names)}; expected {' or '.join(names)}")


def profile(
    models: Mapping[str, Model | LoadedEngine | AnyPath],
    *,
    seconds: float = 10.0,
    threads: int = 0,
    batch: int = 1,
    energy: bool = True,
    layers: bool = False,
    images: AnyPath | None = None,
    output: AnyPath | None = None,
    run: RunOptions | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> ProfileResult:
    """Measure engines side by side, in interleaved rounds in this process.

    Args:
        models: by name; ONNX files are measured on ONNX Runtime, engines on the runtime that built them.
        seconds: the most time for measuring; it ends earlier where all intervals are narrow.
        threads: those of ONNX Runtime; 0 means one per core. ``run`` overrides it.
        batch: images of one inference.
        energy: whether energy is measured too, where the machine can.
        layers: whether the time of each layer is measured too.
        images: a folder of images, for the time from file to answer.
        output: a folder for figures and raw samples.
        run: how engines are run.
        trust: load engines although they are not the files that their manifests record. An engine can run code.
        progress: a function for messages, such as ``print``.

    Raises:
        EdgetlError: nothing was given, or a file cannot be read, loaded or run.
    """
    if not models:
        raise EdgetlError("profile was given no model; give at least one")
    request = ProfileRequest(
        {name: path_of(model) for name, model in models.items()},
        StoppingRule(seconds),
        run or RunOptions(threads=threads),
        batch,
        trust=trust,
        output=None if output is None else Path(output),
        energy=energy,
        layers=layers,
        images=None if images is None else Path(images),
    )
    return ProfileResult(profile_files(request, reporter_of(progress)))
