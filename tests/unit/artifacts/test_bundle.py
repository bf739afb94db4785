from __future__ import annotations

from pathlib import Path

from edgetl.artifacts.bundle import BackboneReference, Bundle, Head, Preprocessing
from edgetl.artifacts.files import read_json, write_json


def head(name: str, *classes: str) -> Head:
    return Head(
        name=name,
        classes=classes,
        activation="softmax",
        regularisation=0.01,
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
    preprocessing=Preprocessing(image_size=32),
    groups={"round": ("0", "8"), "straight": ("1",)},
    heads=(head("round", "0", "8", "other"), head("straight", "1", "other")),
    data_digest="0" * 64,
)


def test_a_bundle_reads_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "bundle.json", BUNDLE)
    assert read_json(tmp_path / "bundle.json", Bundle) == BUNDLE


def test_labels_keep_the_order_of_the_groups() -> None:
    assert BUNDLE.labels == ("0", "8", "1")


def test_other_is_a_class_of_a_specialist_but_none_of_its_labels() -> None:
    assert BUNDLE.head("round").classes == ("0", "8", "other")
    assert BUNDLE.head("round").labels == ("0", "8")
