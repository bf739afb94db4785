from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.report.deployment_names import answer, deployment_of, folded, is_frozen, is_tuned, uniform


@given(st.text("ab.-@,_7", max_size=60), st.integers(1, 20))
def test_a_folded_name_fits_and_is_still_the_whole_name(name: str, width: int) -> None:
    lines = folded(name, width)
    assert "".join(lines) == name
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("combined", ["combined"]),
        ("specialised@features.7", ["specialised@", "features.7"]),
        ("branched@features.7,top", ["branched@", "features.7,top"]),
        ("branched@truncated-features.3,features.7", ["branched@", "truncated-", "features.3,", "features.7"]),
        ("combined@stages.2.blocks.10", ["combined@", "stages.2.", "blocks.10"]),
    ],
)
def test_a_name_is_broken_between_its_parts(name: str, lines: list[str]) -> None:
    assert folded(name, 15) == lines


def test_a_deployment_is_what_stands_before_the_cut() -> None:
    assert [deployment_of(name) for name in ("cascade", "branched@features.7,top")] == ["cascade", "branched"]


def test_a_truncated_head_is_neither_tuned_nor_on_the_whole_frozen_trunk() -> None:
    assert not is_tuned("truncated-features.7")
    assert not is_frozen({"combined": "truncated-features.7"})
    assert is_frozen({}) and is_frozen({"vehicles": "top", "animals": "top"})


def test_heads_have_one_cut_or_none_in_common() -> None:
    assert uniform({}) == "top"
    assert uniform({"vehicles": "features.7", "animals": "features.7"}) == "features.7"
    assert uniform({"vehicles": "features.7", "animals": "truncated-features.7"}) is None


@pytest.mark.parametrize(
    ("name", "cuts", "words"),
    [
        ("combined", ["top"], "One combined model"),
        ("combined@features.7", ["features.7"], "One combined model, tuned above features.7"),
        ("combined@images", ["images"], "One combined model, tuned end to end"),
        ("combined@truncated-layer2", ["truncated-layer2"], "One combined model, cut short at layer2"),
        ("specialised@layer3", ["layer3", "layer3"], "Several specialised ones, tuned above layer3"),
        (
            "specialised@layer3,top",
            ["layer3", "top"],
            "Several specialised ones (a tuned above layer3 and b all frozen)",
        ),
        ("shared", ["top", "top"], "Neither, but one shared trunk with a head per group"),
        (
            "branched@layer3",
            ["layer3", "layer3"],
            "Neither, but one trunk shared up to layer3, then a branch per group",
        ),
        (
            "branched@truncated-layer2,layer3",
            ["truncated-layer2", "layer3"],
            "Neither, but one trunk with a branch per group (a cut short at layer2 and b tuned above layer3)",
        ),
        (
            "branched@truncated-layer2",
            ["truncated-layer2"] * 2,
            "Neither, but one shared trunk cut short at layer2 with a head per group",
        ),
        ("branched@images", ["images"] * 2, "Several specialised ones in one engine, where nothing is shared"),
        (
            "cascade",
            ["top", "top"],
            "Neither, but a cascade: combined first, a group's specialist only where it fired",
        ),
        ("one-vs-rest", ["top"], "Neither, but one trunk with a yes-or-no head per label"),
    ],
)
def test_every_tree_answers_the_central_question_in_words(name: str, cuts: list[str], words: str) -> None:
    assert answer(name, dict(zip("ab", cuts, strict=False))) == words
