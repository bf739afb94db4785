"""What a report says of how the heads were trained: what tuning gained, and when a cascade's second level runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgetl.artifacts.bundle import TOP
from edgetl.artifacts.deployment import COMBINED, ONE_VS_REST
from edgetl.artifacts.files import Artifact
from edgetl.artifacts.results import Results
from edgetl.errors import EdgetlError
from edgetl.report.cut_sweep import shared_flops
from edgetl.report.metric_words import terms
from edgetl.report.table import UNKNOWN
from edgetl.report.wording import flops, listed, percent, printable, signed, significant


@dataclass(frozen=True)
class TunedHead:
    """Validation accuracy of a head on frozen layers (its linear probe), and after the layers were tuned with it.

    ``cost`` is that of a ``branched`` deployment with all groups at this cut, beyond that of ``shared``.
    """

    name: str
    probe: str
    tuned: str
    gain: str
    epochs: str
    cost: str


class _Cascade(Artifact):
    """When the second level runs: each group's share of the images, at this threshold."""

    threshold: float
    fired: dict[str, float]


def tuned_heads(results: Results) -> tuple[TunedHead, ...]:
    """Those of the heads that were tuned, in their order."""
    costs = shared_flops(results)
    return tuple(
        TunedHead(
            name=printable(head["name"]),
            probe=percent(head["probe_val_accuracy"]),
            tuned=percent(head["val_accuracy"]),
            gain=signed(head["val_accuracy"] - head["probe_val_accuracy"]),
            epochs=UNKNOWN if head.get("epochs") is None else str(head["epochs"]),
            cost=_cost(head, costs),
        )
        for head in results.training.get("heads", ())
        if head.get("probe_val_accuracy") is not None
    )


def _cost(head: Mapping[str, Any], costs: Mapping[str, int]) -> str:
    """Only what several groups would run can be shared."""
    alone = head["name"].partition("@")[0] in {COMBINED, ONE_VS_REST}
    if alone or not {head["cut"], TOP} <= costs.keys():
        return UNKNOWN
    return f"+{flops(costs[head['cut']] - costs[TOP])}"


def cascade_note(results: Results) -> str | None:
    """How a cascade's latency is to be read; None where there is none.

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
    fired = listed([f"{printable(group)} on {percent(share)} %" for group, share in cascade.fired.items()])
    words = terms(results.metric)
    where = words.fires.format(threshold=significant(cascade.threshold, 2))
    return (
        f"A cascade runs combined on every image, and a group's specialist only where combined {where} ({fired} of "
        f"{words.fired_on}); its latencies are of {words.timed_on}."
    )
