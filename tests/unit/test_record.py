"""Copies of records are validated as new ones are."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgetl.artifacts.bundle import Preprocessing
from edgetl.config import CalibrationRecipe


def test_a_copy_has_the_changes_and_the_rest():
    before = Preprocessing.square(224, "bicubic")
    assert before.replaced(fit="stretch", height=100) == Preprocessing(
        width=224, height=100, fit="stretch", interpolation="bicubic"
    )
    assert before == Preprocessing.square(224, "bicubic")


@pytest.mark.parametrize("changes", [{"wdth": 3}, {"width": "oops"}, {"width": 0}, {"height": 3}])
def test_a_misspelt_field_a_wrong_value_and_a_broken_rule_are_seen(changes):
    with pytest.raises(ValidationError):
        Preprocessing.square(224).replaced(**changes)


def test_fields_that_were_left_out_stay_left_out():
    assert CalibrationRecipe(images=3).replaced(images=4).model_fields_set == {"images"}
