from __future__ import annotations

import pytest

from edgetl.artifacts.results import Results
from edgetl.errors import EdgetlError
from edgetl.report.training_facts import TunedHead, cascade_note, tuned_heads


def test_a_tuned_head_says_what_it_gained_over_its_probe_and_the_cost(swept: Results) -> None:
    vehicles, animals = tuned_heads(swept)
    assert vehicles == TunedHead(
        name="vehicles@features.7", probe="91.4", tuned="95.7", gain="+4.3", epochs="7", cost="+410 MFLOPs"
    )
    assert (animals.gain, animals.cost) == ("-0.2", "+600 MFLOPs")


def test_a_combined_head_has_nothing_to_share(swept: Results) -> None:
    head = {"name": "combined@features.7", "cut": "features.7", "val_accuracy": 0.93, "probe_val_accuracy": 0.9}
    (tuned,) = tuned_heads(swept.model_copy(update={"training": {"heads": [head]}}))
    assert (tuned.cost, tuned.epochs) == ("-", "-")


def test_heads_that_were_not_tuned_are_left_out(results: Results) -> None:
    assert tuned_heads(results) == ()


def test_a_cascade_says_how_often_each_specialist_ran(swept: Results) -> None:
    note = str(cascade_note(swept))
    assert "at least 0.35 together (vehicles on 41.0 % and animals on 62.0 % of the images)" in note
    assert "are of images that fire at these rates" in note


def test_a_study_without_a_cascade_says_nothing_of_it(results: Results) -> None:
    assert cascade_note(results) is None


def test_facts_of_another_shape_are_one_line(swept: Results) -> None:
    odd = swept.model_copy(update={"training": {"cascade": {"threshold": "often"}}})
    with pytest.raises(EdgetlError, match=r"expected threshold and fired; run `edgetl report` again"):
        cascade_note(odd)


def test_a_detectors_gate_is_the_score_of_one_object_and_not_a_sum(detected: Results) -> None:
    note = str(cascade_note(detected))
    assert "finds an object of the group with a score of at least 0.35" in note
    assert "(vehicles on 81.0 % and people on 12.0 % of the validation images)" in note
    assert "together" not in note
