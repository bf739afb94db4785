"""The gate of a cascade, chosen on validation."""

from __future__ import annotations

import numpy as np
import pytest

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import BackboneReference, Bundle, ClassificationHead, Preprocessing
from edgetl.artifacts.deployment import Gate
from edgetl.stages.classify.search import best_gate
from edgetl.stages.classify.trees import ValidationOutputs

GROUPS = {"vehicles": ("car", "bus"), "signs": ("stop",)}
TRUTH = ("car", "bus", "stop", "stop")


def head(group: str) -> ClassificationHead:
    return ClassificationHead(
        name=f"{group}@cascade",
        classes=(*GROUPS[group], "other"),
        activation="softmax",
        first_level="combined",
        l2=1e-3,
        temperature=1.0,
        val_loss=0.1,
        val_accuracy=1.0,
    )


# The first level finds the group of every image but takes the bus for a car.
COMBINED = np.array([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]], np.float32)
RIGHT = np.array([[0.9, 0.05, 0.05], [0.1, 0.85, 0.05], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], np.float32)
STOP = np.array([[0.05, 0.95], [0.05, 0.95], [0.9, 0.1], [0.9, 0.1]], np.float32)


def choose_gate(second: dict[str, Float32Array], truth: tuple[str, ...] = TRUTH) -> Gate:
    """The gate for the first level's probabilities and those of some groups' second levels."""
    mean = (0.0, 0.0, 0.0)
    trunk = BackboneReference(
        name="edgetl/nano", weights=None, fingerprint="", feature_dim=4, parameters=1, mean=mean, std=mean
    )
    heads = tuple(head(group) for group in second)
    bundle = Bundle(backbone=trunk, preprocessing=Preprocessing.square(32), groups=GROUPS, heads=heads, data_digest="")
    outputs = {"combined": COMBINED, **{f"{group}@cascade": values for group, values in second.items()}}
    return best_gate(bundle, ValidationOutputs(outputs, truth), [one.name for one in heads])


def test_a_specialist_that_mends_mistakes_runs_only_where_it_is_needed() -> None:
    gate = choose_gate({"vehicles": RIGHT})
    assert gate.threshold == pytest.approx(0.9, abs=0.011), "the highest that still lets the specialist mend the bus"
    assert {firing.groups: firing.fraction for firing in gate.firings} == {("vehicles",): 0.5, (): 0.5}


def test_shares_of_firings_sum_to_one_and_name_groups_that_fire_together() -> None:
    gate = choose_gate({"vehicles": RIGHT, "signs": STOP})
    assert sum(firing.fraction for firing in gate.firings) == pytest.approx(1.0)
    shares = [firing.fraction for firing in gate.firings]
    assert shares == sorted(shares, reverse=True)


def test_a_specialist_that_only_does_harm_is_kept_from_running() -> None:
    wrong = RIGHT[:, [1, 0, 2]]
    gate = choose_gate({"vehicles": wrong}, ("car", "car", "stop", "stop"))
    assert gate.threshold == 0.99
    assert gate.firings[0].groups == ()
    assert gate.firings[0].fraction == 1.0
