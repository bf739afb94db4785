from __future__ import annotations

from edgetl.artifacts.data_index import DataIndex, Sample


def sample(path: str, content: str, label: str = "a") -> Sample:
    return Sample(path=path, label=label, sha256=content)


INDEX = DataIndex(
    generated=False,
    labels=("a", "b"),
    train=(sample("1.png", "01"), sample("2.png", "02", "b")),
    val=(sample("3.png", "03"),),
    test=(sample("4.png", "04"),),
)


def test_splits_are_found_by_name() -> None:
    assert INDEX.split("train") == INDEX.train
    assert INDEX.split("val") == INDEX.val
    assert INDEX.split("test") == INDEX.test


def test_the_digest_stays_when_files_are_moved() -> None:
    moved = tuple(one.model_copy(update={"path": f"elsewhere/{one.path}"}) for one in INDEX.train)
    assert INDEX.model_copy(update={"train": moved}).digest("train") == INDEX.digest("train")


def test_the_digest_changes_with_content_label_and_order() -> None:
    first, second = INDEX.train
    others = [
        (first.model_copy(update={"sha256": "ff"}), second),
        (first.model_copy(update={"label": "b"}), second),
        (second, first),
        (first,),
    ]
    digests = {INDEX.model_copy(update={"train": other}).digest("train") for other in others}
    assert len(digests | {INDEX.digest("train")}) == 5


def test_the_digest_of_train_and_val_does_not_hang_on_test() -> None:
    assert INDEX.model_copy(update={"test": ()}).digest("train", "val") == INDEX.digest("train", "val")
    assert INDEX.digest("train", "val") != INDEX.digest("train")


def test_an_image_that_changes_its_split_changes_the_digest() -> None:
    moved = INDEX.model_copy(update={"train": INDEX.train[:1], "val": (INDEX.train[1], *INDEX.val)})
    assert moved.digest("train", "val") != INDEX.digest("train", "val")
