"""What a first level says of its own training images: every image judged by a head that never saw it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from scipy.special import expit, softmax  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from edgetl.artifacts.bundle import Activation, ClassificationHead  # noqa: E402
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, train_heads  # noqa: E402
from edgetl.train.solver import HeadProblem, design, fit  # noqa: E402
from edgetl.train.stacking import out_of_fold  # noqa: E402

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

LABELS = ("car", "bus", "stop")
STRENGTH = 0.03


def head(
    activation: Activation = "softmax", temperature: float = 1.0, strength: float = STRENGTH
) -> ClassificationHead:
    return ClassificationHead(
        name="combined",
        classes=LABELS,
        activation=activation,
        l2=strength,
        temperature=temperature,
        val_loss=0.5,
        val_accuracy=0.8,
    )


def split(count: int, dimension: int = 6, views: int = 1, seed: int = 0) -> LabelledFeatures:
    """Overlapping clouds of as many images of each label, in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(LABELS))
    centres = rng.normal(0.0, 1.0, (len(LABELS), dimension))[labels]
    each = tuple((centres + rng.normal(0.0, 1.0, centres.shape)).astype(np.float32) for _ in range(views))
    return LabelledFeatures(each, tuple(LABELS[label] for label in labels))


def changed(train: LabelledFeatures, image: int, view: int = 0) -> LabelledFeatures:
    """The same, but for one view of one image, which is now far from where it was."""
    views = [one.copy() for one in train.views]
    views[view][image] += 10.0
    return replace(train, views=tuple(views))


def mates(train: LabelledFeatures, image: int, seed: int = 0) -> Rows:
    """The images judged by a head that did not see this one: what is said of them does not depend on it."""
    before, after = (out_of_fold(head(), features, seed)[0] for features in (train, changed(train, image)))
    others = np.flatnonzero((before == after).all(axis=1))
    return np.union1d(others, [image])


def folds(train: LabelledFeatures, seed: int = 0) -> list[Rows]:
    left, found = set(range(len(train.labels))), []
    while left:
        found.append(mates(train, min(left), seed))
        assert left >= set(found[-1].tolist()), "no image is judged by two heads"
        left -= set(found[-1].tolist())
    return found


def test_every_image_is_judged_once_by_a_head_that_never_saw_it() -> None:
    train = split(60)
    parts = folds(train)
    assert len(parts) == 5
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))


def test_every_label_is_spread_evenly_over_the_folds() -> None:
    train = split(63)
    for part in folds(train):
        counts = Counter(train.labels[row] for row in part)
        assert all(4 <= counts[label] <= 5 for label in LABELS), "21 images of each label over five folds"


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_head_fitted_without_a_fold_gives_exactly_what_is_said_of_it(activation: Activation) -> None:
    train, temperature = split(60, views=2), 1.7
    said = out_of_fold(head(activation, temperature), train, seed=0)
    fold = mates(train, 0)
    outside = np.setdiff1d(np.arange(60), fold)
    targets = HeadPlan("combined", LABELS, activation).targets([train.labels[row] for row in outside])
    shared = design([torch.from_numpy(view[outside]) for view in train.views])
    ((weight, bias),) = fit(shared, [(HeadProblem(targets, len(LABELS), activation), STRENGTH)])
    for view, probabilities in zip(train.views, said, strict=True):
        logits = (view[fold] @ weight.numpy().T + bias.numpy()) / temperature
        expected = softmax(logits, axis=1) if activation == "softmax" else expit(logits)
        np.testing.assert_allclose(probabilities[fold], expected, atol=1e-6)


def test_what_is_said_of_a_fold_is_what_scikit_learn_says_of_it() -> None:
    train = split(90)
    (features,), (said,) = train.views, out_of_fold(head(), train, seed=0)
    names = np.array(train.labels)
    for fold in folds(train):
        outside = np.setdiff1d(np.arange(90), fold)
        # Our strength is relative to the features' mean variance; scikit-learn divides the penalty by the summed loss.
        penalty = STRENGTH * float(features[outside].astype(np.float64).var(axis=0).mean())
        with threadpool_limits(1):
            model = LogisticRegression(C=1 / (len(outside) * penalty), tol=1e-8, max_iter=1000)
            model.fit(features[outside].astype(np.float64), names[outside])
        expected = model.predict_proba(features[fold])[:, [list(model.classes_).index(label) for label in LABELS]]
        np.testing.assert_allclose(said[fold], expected, atol=2e-3)


def test_an_images_other_views_are_left_out_with_it() -> None:
    train = split(60, views=2)
    before = out_of_fold(head(), train, seed=0)
    after = out_of_fold(head(), changed(train, image=7, view=1), seed=0)
    np.testing.assert_array_equal(before[0][7], after[0][7])
    assert (before[0] != after[0]).any(), "heads that saw the view say something else"
    assert len(before) == 2 and (before[1][7] != after[1][7]).any()


def test_what_a_head_memorised_is_not_believed() -> None:
    """Labels at random and more features than images: there is nothing to learn, and all of it can be remembered."""
    rng = np.random.default_rng(0)
    labels = tuple(LABELS[label] for label in rng.permutation(np.arange(150) % 3))
    train = LabelledFeatures((rng.normal(0.0, 1.0, (150, 400)).astype(np.float32),), labels)
    truth = np.array([LABELS.index(label) for label in labels])
    (fitted,), tensors = train_heads([HeadPlan("combined", LABELS, "softmax")], train, train, [1e-3])
    in_sample = (train.views[0] @ tensors["combined.weight"].T + tensors["combined.bias"]).argmax(axis=1)
    (said,) = out_of_fold(fitted, train, seed=0)
    assert (in_sample == truth).mean() > 0.99
    # Chance is 1/3; five standard deviations of 150 guesses are 0.19.
    assert (said.argmax(axis=1) == truth).mean() < 1 / 3 + 0.19


def test_temperature_softens_what_is_said() -> None:
    train = split(60)
    (sharp,), (soft,) = (out_of_fold(head(temperature=t), train, seed=0) for t in (1.0, 2.0))
    roots = np.sqrt(sharp)
    np.testing.assert_allclose(soft, roots / roots.sum(axis=1, keepdims=True), atol=1e-5)


def test_one_seed_gives_the_same_bytes_and_another_one_other_folds() -> None:
    train = split(60)
    (one,), (again,), (other,) = (out_of_fold(head(), train, seed) for seed in (0, 0, 1))
    assert one.tobytes() == again.tobytes()
    assert (one != other).any()
    assert mates(train, 0, seed=0).tolist() != mates(train, 0, seed=1).tolist()


def test_a_label_with_fewer_images_than_folds_is_judged_all_the_same() -> None:
    train = split(60)
    labels = ("stop", *("car" if label == "stop" else label for label in train.labels[1:]))
    (said,) = out_of_fold(head(), replace(train, labels=labels), seed=0)
    np.testing.assert_allclose(said.sum(axis=1), 1.0, atol=1e-6)
    assert said[0, LABELS.index("stop")] < 0.01, "the head that judges it never saw its label"
