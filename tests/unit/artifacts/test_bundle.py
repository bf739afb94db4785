from __future__ import annotations

import json
from pathlib import Path

from edgetl.artifacts.bundle import FEATURES, TOP, BackboneReference, Bundle, ClassificationHead, Preprocessing
from edgetl.artifacts.files import read_json, write_json


def head(name: str, *classes: str) -> ClassificationHead:
    return ClassificationHead(
        name=name,
        classes=classes,
        activation="softmax",
        l2=0.01,
        temperature=1.5,
        val_loss=0.1,
        val_accuracy=0.9,
    )


BUNDLE = Bundle(
    backbone=BackboneReference(
        name="edgetl/nano",
        weights="default",
        fingerprint="0" * 64,
        feature_dim=8,
        parameters=100,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    ),
    preprocessing=Preprocessing.square(32),
    groups={"round": ("0", "8"), "straight": ("1",)},
    heads=(head("round", "0", "8", "other"), head("straight", "1", "other")),
    data_digest="0" * 64,
)


def test_a_bundle_reads_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "bundle.json", BUNDLE)
    assert read_json(tmp_path / "bundle.json", Bundle) == BUNDLE


def test_labels_keep_the_order_of_the_groups() -> None:
    assert BUNDLE.labels == ("0", "8", "1")


def test_a_tuned_head_answers_for_its_group_and_names_its_cut() -> None:
    tuned = head("round@features.7", "0", "8", "other").model_copy(update={"cut": "features.7"})
    assert (tuned.role, tuned.place) == ("round", "features.7")
    truncated = tuned.model_copy(update={"name": "round@truncated-features.7", "truncated": True})
    assert (truncated.role, truncated.place) == ("round", "truncated-features.7")


def test_a_head_of_an_older_bundle_stands_at_the_top_of_the_frozen_trunk(tmp_path: Path) -> None:
    """What such a bundle did not know yet takes the meaning that it had."""
    path = tmp_path / "bundle.json"
    write_json(path, BUNDLE)
    content = json.loads(path.read_text())
    for old in content["heads"]:
        for field in ("cut", "truncated", "features", "first_level", "probe_val_loss", "probe_val_accuracy", "epochs"):
            del old[field]
    path.write_text(json.dumps(content))
    first, _ = read_json(path, Bundle).heads
    assert (first.role, first.place, first.features, first.first_level) == ("round", TOP, FEATURES, None)
