"""The trainer of a classification study: heads at the top, branches, truncated heads, a cascade's second level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save

from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import IMAGES, TOP, TRUNCATED, TRUNK, Bundle, ClassificationHead
from edgetl.artifacts.deployment import SECOND_LEVEL
from edgetl.artifacts.files import sha256_bytes, write_bytes, write_json
from edgetl.config import COMBINED
from edgetl.data.stream import to_input
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.model import save_model
from edgetl.graph.simplify import simplify
from edgetl.stages.classify.int8_trunk import Int8Part, Int8Trunk, int8_training, int8_trunk
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
    """The heads and networks that are trained so far; every step adds to them.

    ``tensors`` holds the heads' ``NAME.weight`` and ``NAME.bias``, ``states`` the trunk's tensors that tuning changed,
    by head. ``networks`` are graphs from images to ``features``, which are called ``NETWORK/features`` in the one graph
    that all networks are fused to; ``training`` and ``validation`` hold their values under these names.
    """

    heads: list[ClassificationHead] = field(default_factory=list)
    tensors: dict[str, Float32Array] = field(default_factory=dict)
    states: dict[str, Mapping[str, Float32Array]] = field(default_factory=dict)
    networks: dict[str, onnx.ModelProto] = field(default_factory=dict)
    # Functions, because features of a tuned branch cost a pass over all images and only the best branches' are needed.
    training: dict[str, Callable[[], LabelledFeatures]] = field(default_factory=dict)
    validation: dict[str, Float32Array] = field(default_factory=dict)

    def add_network(
        self, name: str, graph: onnx.ModelProto, train: Callable[[], LabelledFeatures], val: Float32Array
    ) -> None:
        features = f"{name}/features"
        self.networks[name], self.training[features], self.validation[features] = graph, train, val

    def outputs(self) -> dict[str, Float32Array]:
        """Every head's probabilities of the validation images, N x (number of its classes)."""
        return head_outputs(self.heads, self.tensors, self.validation)

    def write(self, folder: Path, bundle: Bundle, val_labels: Sequence[str]) -> list[Path]:
        """Write the bundle's files, and return them; ``val_labels`` are the labels of the validation images."""
        truth = np.array([bundle.labels.index(label) for label in val_labels], np.int64)
        outputs = {f"head/{name}": values for name, values in self.outputs().items()}
        states = {f"{head}/{name}": value for head, state in self.states.items() for name, value in state.items()}
        save_model(fuse(self.networks).model, folder / "trunk.onnx")
        write_bytes(folder / "heads.safetensors", save(self.tensors))
        write_bytes(folder / "branches.safetensors", save(states))
        write_bytes(folder / "validation.safetensors", save({"truth": truth, **outputs}))
        write_json(folder / "bundle.json", bundle)
        names = ("trunk.onnx", "heads.safetensors", "branches.safetensors", "validation.safetensors", "bundle.json")
        return [folder / name for name in names]


class ClassifierTrainer:
    """Trains a study's heads step by step. Every step may build on those before it.

    ``int8`` is the INT8 trunk that heads are trained on, where the study asks for quantization-aware training. Layers
    above a cut are then tuned on the INT8 trunk's maps, and rounded as INT8 will round them.
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
        """Train all heads on the frozen trunk, and return the features that they learned from."""
        source, backbone = self._source, self._backbone
        graph, record = simplify(export_trunk(backbone)), int8_training(source.context)
        if record is None:
            key, extract = TOP, make_extractor(backbone.trunk, graph)
        else:
            train = source.index.train
            self.int8 = int8_trunk(source.context, record, train, source.root, backbone.preprocessing, graph)
            key, extract = Int8Part(TOP, self.int8.graph).keyed_extractor()
        features = source.at(key, (backbone.reference.feature_dim,), extract)
        self.trained.add_network(TRUNK, graph, lambda: features.train, features.val.views[0])
        self._fit(self._plans, features.train, features.val, {})
        return features

    def train_above(self, point: CutPoint) -> None:
        """Tune the layers above a cut for every head that may have one, and train truncated heads if asked for."""
        cut, backbone = point.name, self._backbone
        key = cut
        extract: Extractor = to_input  # below `images` there are no layers, in no precision
        if cut != IMAGES:
            lower, _ = split(backbone, cut)
            graph = simplify(export_trunk(backbone, lower))
            if self.int8 is None:
                extract = make_extractor(lower, graph)
            else:
                key, extract = self.int8.below(cut, graph).keyed_extractor()
        maps = self._source.at(key, point.shape, extract)
        if self._study.backbone.truncate and cut != IMAGES:
            network = f"{TRUNCATED}{cut}"
            train, val = _pooled(maps.train), _pooled(maps.val)
            graph = simplify(export_trunk(backbone, truncated(backbone, cut)))
            self.trained.add_network(network, graph, lambda: train, val.views[0])
            plans = [HeadPlan(f"{plan.name}@{network}", plan.classes, plan.activation) for plan in self._tunable()]
            self._fit(plans, train, val, {"cut": cut, "truncated": True, "features": f"{network}/features"})
        self._tune(cut, key, maps)

    def train_second_level(self, top: TrainValFeatures) -> None:
        """Train a head for each group on the features of its best branch and the first level's probabilities."""
        first = next(head for head in self.trained.heads if head.name == COMBINED)
        # A first level is surer of images that it was fitted to than it will be on the device.
        on_train = out_of_fold(first, top.train, self._study.seed)
        on_val = self.trained.outputs()[COMBINED]
        for group in self._study.groups:
            best = min((head for head in self.trained.heads if head.role == group), key=lambda head: head.val_loss)
            features = self.trained.training[best.features]()
            views = (np.concatenate(pair, axis=1) for pair in zip(features.views, on_train, strict=True))
            val = np.concatenate([self.trained.validation[best.features], on_val], axis=1)
            self._fit(
                [HeadPlan(f"{group}@{SECOND_LEVEL}", best.classes, best.activation)],
                LabelledFeatures(tuple(views), features.labels),
                LabelledFeatures((val,), top.val.labels),
                {"cut": best.cut, "truncated": best.truncated, "features": best.features, "first_level": COMBINED},
            )

    def _tune(self, cut: str, key: str, maps: TrainValFeatures) -> None:
        """Tune the layers above a cut, or take them from the cache; ``key`` is that of the maps."""
        training, seed, tensors = self._study.training, self._study.seed, self.trained.tensors
        start = {
            plan.name: (plan, tensors[f"{plan.name}.weight"], tensors[f"{plan.name}.bias"]) for plan in self._tunable()
        }
        precision = in_float if self.int8 is None else self.int8.tuning(maps.train.views[0])

        def work() -> Mapping[str, TunedBranch]:
            settings = training.finetune
            with self._source.context.reporter.progress(f"tuning above {cut}", settings.epochs) as advance:
                return tune(self._backbone, cut, start, maps.train, maps.val, settings, seed, advance, precision)

        heads = {name: sha256_bytes(weight.tobytes() + bias.tobytes()) for name, (_, weight, bias) in start.items()}
        views = [training.views, training.flip, training.finetune.model_dump(), seed]
        # Everything that decides the result must be in the cache's key: a branch of other settings would be taken.
        facts = [key, self._source.digest(), heads, views, *([] if self.int8 is None else self.int8.facts())]
        branches, was_cached = cached(self._source.context.run.cache / "tuned", facts, work)
        if was_cached:
            self._message(f"finetune: the layers above {cut} come from the cache")
        for tuned in branches.values():
            self._add_tuned(cut, tuned, maps, precision)

    def _add_tuned(self, cut: str, tuned: TunedBranch, maps: TrainValFeatures, precision: TuningPrecision) -> None:
        head, name = tuned.head, tuned.head.name
        graph = simplify(export_trunk(with_state(self._backbone, tuned.state)))

        def features() -> LabelledFeatures:
            views = (branch_features(self._backbone, cut, tuned.state, view, precision) for view in maps.train.views)
            return LabelledFeatures(tuple(views), maps.train.labels)

        self.trained.add_network(name, graph, features, tuned.val_features)
        self.trained.states[name] = tuned.state
        self.trained.heads.append(head)
        self.trained.tensors.update({f"{name}.weight": tuned.weight, f"{name}.bias": tuned.bias})
        self._message(
            f"finetune: head {name}: {head.val_accuracy:.1%} on validation, "
            f"{head.probe_val_accuracy:.1%} before its layers were tuned"
        )

    def _fit(
        self, plans: Sequence[HeadPlan], train: LabelledFeatures, val: LabelledFeatures, place: Mapping[str, object]
    ) -> None:
        """Train linear heads; ``place`` holds the fields of a head that say which features it reads."""
        heads, tensors = train_heads(plans, train, val, self._study.training.l2)
        self.trained.heads.extend(head.replaced(**place) for head in heads)
        self.trained.tensors.update(tensors)
        for head in heads:
            self._message(f"finetune: head {head.name}: {head.val_accuracy:.1%} on validation")

    def _tunable(self) -> tuple[HeadPlan, ...]:
        """The plans of the heads that may have a cut of their own."""
        tunable = {role for kind in self._study.kinds for role in kind.tunable_roles(self._study.groups)}
        return tuple(plan for plan in self._plans if plan.name in tunable)


def _pooled(maps: LabelledFeatures) -> LabelledFeatures:
    return LabelledFeatures(tuple(pool(view) for view in maps.views), maps.labels)
