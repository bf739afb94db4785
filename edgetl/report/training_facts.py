"""Facts on how the heads were trained: what tuning gained, and when a cascade's second level runs."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from edgetl.artifacts.bundle import TOP, role_of
from edgetl.artifacts.files import Artifact
from edgetl.artifacts.results import Results
from edgetl.config import COMBINED, ONE_VS_REST, metric_named
from edgetl.errors import EdgetlError
from edgetl.report.cut_sweep import shared_flops
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import flops, listed, percent, printable, signed, significant


@dataclass(frozen=True)
class TunedHead:
    """Validation accuracy of a head on frozen layers (its linear probe), and after the layers were tuned with it.

    ``cost`` is how many FLOPs more than ``shared`` a ``branched`` deployment with all groups at this cut computes.
    """

    name: str
    probe: str
    tuned: str
    gain: str
    epochs: str
    cost: str


class _Cascade(Artifact):
    """When the second level runs: the fraction of the images for each group, at this threshold."""

    threshold: float
    fired: dict[str, float]


def tuned_heads(results: Results) -> tuple[TunedHead, ...]:
    """Return the heads that were tuned, in their order."""
    costs, tuned = shared_flops(results), []
    for head in results.training.get("heads", ()):
        if head.get("probe_val_accuracy") is None:
            continue
        # Only what several groups would run can be shared.
        alone = role_of(head["name"]) in {COMBINED, ONE_VS_REST}
        known = not alone and {head["cut"], TOP} <= costs.keys()
        tuned.append(
            TunedHead(
                name=printable(head["name"]),
                probe=percent(head["probe_val_accuracy"]),
                tuned=percent(head["val_accuracy"]),
                gain=signed(head["val_accuracy"] - head["probe_val_accuracy"]),
                epochs=UNKNOWN if head.get("epochs") is None else str(head["epochs"]),
                cost=f"+{flops(costs[head['cut']] - costs[TOP])}" if known else UNKNOWN,
            )
        )
    return tuple(tuned)


def cascade_note(results: Results) -> str | None:
    """Return how to read a cascade's latency; None where there is none.

    Raises:
        EdgetlError: the study's facts on it have another shape.
    """
    if "cascade" not in results.training:
        return None
    try:
        cascade = _Cascade.model_validate(results.training["cascade"])
    except ValidationError as error:
        what = f"training.cascade has {error.error_count()} faults"
        raise EdgetlError(f"results.json: {what}, expected threshold and fired; run `edgetl report` again") from None
    fired = listed([f"{printable(group)} on {percent(fraction)} %" for group, fraction in cascade.fired.items()])
    words = metric_named(results.metric).task_words
    where = words.fires.format(threshold=significant(cascade.threshold, 2))
    return (
        f"A cascade runs combined on every image, and a group's specialist only where combined {where} ({fired} of "
        f"{words.fired_on}); its latencies are of {words.timed_on}."
    )
