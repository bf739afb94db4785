"""Everything a study trains: heads at the top, branches above each cut, truncated heads, a cascade's second level."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, TOP, TRUNCATED, TRUNK, ClassificationHead
from edgetl.artifacts.deployment import CASCADE, COMBINED, TUNABLE, roles
from edgetl.artifacts.files import sha256_bytes
from edgetl.config import Study
from edgetl.data.stream import to_input
from edgetl.graph.simplify import simplify
from edgetl.stages.classify.int8_trunk import Int8Trunk, int8_training, int8_trunk
from edgetl.stages.classify.study_features import StudyFeatures, TrainValFeatures
from edgetl.stages.classify.tuned_cache import cached
from edgetl.train.branch import TuningPrecision, in_float
from edgetl.train.cuts import CutPoint, pool, split
from edgetl.train.feature_cache import Extractor, make_extractor
from edgetl.train.linear_heads import HeadPlan, LabelledFeatures, plan_heads, train_heads
from edgetl.train.onnx_export import export_trunk
from edgetl.train.reference import head_outputs, truncated
from edgetl.train.stacking import out_of_fold
from edgetl.train.tune import TunedBranch, branch_features, tune, with_state


@dataclass(frozen=True)
class TrainedClassifiers:
    """What training has made so far; every step adds to it.

    ``tensors`` are the heads' (``NAME.weight``, ``NAME.bias``), ``states`` what tuning changed in the trunk, by head.
    ``networks`` are graphs from images to ``features``; those features are called ``NETWORK/features`` where all
    networks are one graph. ``training`` and ``validation`` are the features, the former made when they are asked for.
    """

    heads: list[ClassificationHead] = field(default_factory=list)
    tensors: dict[str, Float32Array] = field(default_factory=dict)
    states: dict[str, Mapping[str, Float32Array]] = field(default_factory=dict)
    networks: dict[str, onnx.ModelProto] = field(default_factory=dict)
    training: dict[str, Callable[[], LabelledFeatures]] = field(default_factory=dict)
    validation: dict[str, Float32Array] = field(default_factory=dict)

    def head(self, name: str) -> ClassificationHead:
        return next(head for head in self.heads if head.name == name)

    def add_network(
        self, name: str, graph: onnx.ModelProto, train: Callable[[], LabelledFeatures], val: Float32Array
    ) -> None:
        features = f"{name}/features"
        self.networks[name], self.training[features], self.validation[features] = graph, train, val

    def outputs(self) -> dict[str, Float32Array]:
        """What every head says of the validation images, N x (number of its classes)."""
        return head_outputs(self.heads, self.tensors, self.validation)


class ClassifierTrainer:
    """Trains a study's heads step by step. Every step may build on those before it.

    ``int8`` is the trunk that heads were trained on, where they are trained for INT8: layers above a cut learn from
    what it makes of images up to there, and are rounded as INT8 will round them.
    """

    int8: Int8Trunk | None = None

    def __init__(self, source: StudyFeatures) -> None:
        self._source = source
        self._backbone = source.backbone
        self._study = source.context.study
        self._message = source.context.reporter.message
        self._plans = plan_heads(self._study.deployments, self._study.groups)
        self.trained = TrainedClassifiers()

    def train_at_the_top(self) -> TrainValFeatures:
        """All heads on the frozen trunk."""
        graph = simplify(export_trunk(self._backbone))
        cut, extract = self._top(graph)
        seen = self._source.at(cut, (self._backbone.reference.feature_dim,), extract)
        self.trained.add_network(TRUNK, graph, lambda: seen.train, seen.val.views[0])
        self._fit(self._plans, seen.train, seen.val, {})
        return seen

    def _top(self, graph: onnx.ModelProto) -> tuple[str, Extractor]:
        """What heads learn from: the trunk as it is, or as INT8 makes it."""
        wanted, source = int8_training(self._source.context), self._source
        if wanted is None:
            return TOP, make_extractor(self._backbone.trunk, graph)
        preprocessing = self._backbone.preprocessing
        self.int8 = int8_trunk(source.context, wanted, source.index.train, source.root, preprocessing, graph)
        top = self.int8.top()
        return top.key, top.extractor()

    def train_above(self, point: CutPoint) -> None:
        """What is above a cut, tuned for every head that may have one; and heads on the cut itself, if asked for."""
        key, extract = self._below(point.name)
        maps = self._source.at(key, point.shape, extract)
        if self._study.backbone.truncate and point.name != IMAGES:
            self._truncate(point.name, maps)
        self._tune(point.name, key, maps)

    def train_second_level(self, top: TrainValFeatures) -> None:
        """For each group a head that reads its best branch's features and, beside them, what the first level says."""
        first = self.trained.head(COMBINED)
        said = out_of_fold(first, top.train, self._study.seed)
        on_val = self.trained.outputs()[COMBINED]
        for group in self._study.groups:
            best = min((head for head in self.trained.heads if head.role == group), key=lambda head: head.val_loss)
            features = self.trained.training[best.features]()
            val = np.concatenate([self.trained.validation[best.features], on_val], axis=1)
            plan = HeadPlan(f"{group}@{CASCADE}", best.classes, best.activation)
            self._fit(
                [plan],
                LabelledFeatures(tuple(map(_side_by_side, features.views, said)), features.labels),
                LabelledFeatures((val,), top.val.labels),
                {"cut": best.cut, "truncated": best.truncated, "features": best.features, "first_level": COMBINED},
            )

    def _below(self, cut: str) -> tuple[str, Extractor]:
        """From images to what the layers below a cut make of them, and what the cache knows that by.

        Below ``images`` there are no layers, in no precision.
        """
        if cut == IMAGES:
            return cut, to_input
        lower, _ = split(self._backbone, cut)
        graph = simplify(export_trunk(self._backbone, lower))
        if self.int8 is None:
            return cut, make_extractor(lower, graph)
        part = self.int8.below(cut, graph)
        return part.key, part.extractor()

    def _truncate(self, cut: str, maps: TrainValFeatures) -> None:
        network = f"{TRUNCATED}{cut}"
        train, val = _pooled(maps.train), _pooled(maps.val)
        graph = simplify(export_trunk(self._backbone, truncated(self._backbone, cut)))
        self.trained.add_network(network, graph, lambda: train, val.views[0])
        plans = [HeadPlan(f"{plan.name}@{network}", plan.classes, plan.activation) for plan in self._tunable()]
        self._fit(plans, train, val, {"cut": cut, "truncated": True, "features": f"{network}/features"})

    def _tune(self, cut: str, key: str, maps: TrainValFeatures) -> None:
        study, tensors = self._study, self.trained.tensors
        start = {
            plan.name: (plan, tensors[f"{plan.name}.weight"], tensors[f"{plan.name}.bias"]) for plan in self._tunable()
        }

        precision = in_float if self.int8 is None else self.int8.tuning(maps.train.views[0])

        def work() -> Mapping[str, TunedBranch]:
            settings = study.training.finetune
            with self._source.context.reporter.progress(f"tuning above {cut}", settings.epochs) as advance:
                return tune(self._backbone, cut, start, maps.train, maps.val, settings, study.seed, advance, precision)

        done, was_cached = cached(self._source.context.run.cache / "tuned", self._facts(key, start), work)
        if was_cached:
            self._message(f"finetune: what is above {cut} from the cache")
        for tuned in done.values():
            self._add_tuned(cut, tuned, maps, precision)

    def _facts(self, key: str, start: Mapping[str, tuple[HeadPlan, Float32Array, Float32Array]]) -> list[object]:
        """All that decides what tuning makes; ``key`` is that of the maps."""
        training = self._study.training
        heads = {name: sha256_bytes(weight.tobytes() + bias.tobytes()) for name, (_, weight, bias) in start.items()}
        views = [training.views, training.flip, training.finetune.model_dump(), self._study.seed]
        aware = [] if self.int8 is None else self.int8.facts()
        return [key, self._source.digest(), heads, views, *aware]

    def _add_tuned(self, cut: str, tuned: TunedBranch, maps: TrainValFeatures, precision: TuningPrecision) -> None:
        head = tuned.head
        graph = simplify(export_trunk(with_state(self._backbone, tuned.state)))

        def features() -> LabelledFeatures:
            views = (branch_features(self._backbone, cut, tuned.state, view, precision) for view in maps.train.views)
            return LabelledFeatures(tuple(views), maps.train.labels)

        self.trained.add_network(head.name, graph, features, tuned.val_features)
        self.trained.states[head.name] = tuned.state
        self.trained.heads.append(head)
        self.trained.tensors[f"{head.name}.weight"], self.trained.tensors[f"{head.name}.bias"] = (
            tuned.weight,
            tuned.bias,
        )
        self._message(
            f"finetune: head {head.name}: {head.val_accuracy:.1%} on validation, "
            f"{head.probe_val_accuracy:.1%} before its layers were tuned"
        )

    def _fit(
        self, plans: Sequence[HeadPlan], train: LabelledFeatures, val: LabelledFeatures, place: Mapping[str, object]
    ) -> None:
        """Linear heads; ``place`` are the fields of a head that say where it stands."""
        heads, tensors = train_heads(plans, train, val, self._study.training.l2)
        self.trained.heads.extend(head.model_copy(update=place) for head in heads)
        self.trained.tensors.update(tensors)
        for head in heads:
            self._message(f"finetune: head {head.name}: {head.val_accuracy:.1%} on validation")

    def _tunable(self) -> tuple[HeadPlan, ...]:
        """The plans of the heads that may have a cut of their own."""
        wanted = set(tunable_roles(self._study))
        return tuple(plan for plan in self._plans if plan.name in wanted)


def tunable_roles(study: Study) -> Iterator[str]:
    """What the heads answer for whose cut is to be chosen. A cascade's first level stays frozen."""
    for kind in study.deployments:
        if kind in TUNABLE:
            yield from roles(kind, tuple(study.groups))
        elif kind == CASCADE:
            yield from study.groups


def _pooled(maps: LabelledFeatures) -> LabelledFeatures:
    return LabelledFeatures(tuple(pool(view) for view in maps.views), maps.labels)


def _side_by_side(features: Float32Array, probabilities: Float32Array) -> Float32Array:
    return np.concatenate([features, probabilities], axis=1)
