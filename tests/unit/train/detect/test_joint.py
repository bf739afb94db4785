"""The last layers of a trunk tuned with a head: what is tuned, what is not, and what graphs still have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.config import BackboneSettings
from edgetl.graph.fusion.fused_graph import fuse
from edgetl.graph.parity import run
from edgetl.graph.simplify import simplify
from edgetl.train.detect.detector import Detector, load_detector
from edgetl.train.detect.joint import DetectorNetwork, Joint, raw_outputs, split_trunk, tensors
from edgetl.train.detect.yolo_heads import YoloHead, pyramid_head, second_level_head
from edgetl.train.onnx_export import export_network

SHARES = (0.01, 0.2, 0.5, 0.99)

Load = Callable[..., Detector]


@pytest.fixture(scope="module")
def resnet() -> Detector:
    return load_detector(BackboneSettings(name="torchvision/resnet18", weights=None, image_size=64), Path(), 0)


@pytest.fixture(scope="module")
def nano() -> Detector:
    return load_detector(BackboneSettings(name="edgetl/nano", image_size=48), Path(), 0)


@pytest.fixture(params=["nano", "resnet", "darknet"])
def detector(request: pytest.FixtureRequest) -> Detector:
    """One map, three, and two of which one is another one's way."""
    found = request.getfixturevalue(request.param)
    return found() if request.param == "darknet" else found  # type: ignore[no-any-return]


def images_of(detector: Detector, batch: int = 2) -> Tensor:
    return torch.rand(batch, *detector.preprocessing.shape, generator=torch.Generator().manual_seed(1))


def head_of(detector: Detector) -> YoloHead:
    scales = [YoloScale(anchors=((9.0, 9.0), (20.0, 30.0))) for _ in detector.maps]
    return pyramid_head([shape[0] for shape in detector.shapes], 8, scales, 2, seed=0)


def tuned(joint: Joint, maps: tuple[Tensor, ...], steps: int = 2) -> Joint:
    optimizer = torch.optim.AdamW([one for one in joint.parameters() if one.requires_grad], lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((raw - 1.0).square().mean() for raw in joint(maps)).backward()  # type: ignore[union-attr]
        optimizer.step()
    return joint


@pytest.mark.parametrize("share", SHARES)
def test_below_and_above_a_cut_are_the_trunk_bit_for_bit(detector: Detector, share: float) -> None:
    parted, images = split_trunk(detector, share), images_of(detector)
    with torch.inference_mode():
        crossing = parted.below(images)
        assert tuple(tuple(value.shape[1:]) for value in crossing) == parted.shapes
        for ours, whole in zip(parted.above(*crossing), detector.trunk()(images), strict=True):
            assert torch.equal(ours, whole)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("share", SHARES)
def test_every_share_leaves_convolutions_on_both_sides(detector: Detector, share: float) -> None:
    parted = split_trunk(detector, share)
    above, below = convolutions(parted.above), convolutions(parted.below)
    assert above and below
    assert len(above) + len(below) == len(convolutions(detector.trunk())), "none is on both sides, none is lost"


def test_a_larger_share_has_more_above_its_cut(detector: Detector) -> None:
    counts = [len(convolutions(split_trunk(detector, share).above)) for share in SHARES]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_joint_network_begins_as_the_head_on_the_frozen_trunk(detector: Detector) -> None:
    parted, head, images = split_trunk(detector, 0.5), head_of(detector), images_of(detector)
    with torch.inference_mode():
        frozen = head(detector.trunk()(images))
        for ours, theirs in zip(Joint(parted.above, head)(parted.below(images)), frozen, strict=True):
            assert torch.equal(ours, theirs)


def test_tuning_changes_only_convolutions_above_the_cut(detector: Detector) -> None:
    parted, trunk = split_trunk(detector, 0.5), detector.trunk()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    joint = Joint(parted.above, head_of(detector).requires_grad_(False))  # as trained heads are
    start = {name: value.clone() for name, value in joint.state_dict().items()}
    with torch.inference_mode():
        crossing = parted.below(images_of(detector))
    tuned(joint, tuple(one.clone() for one in crossing))
    normalisations = {
        f"{path}.{name}"
        for path, module in joint.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.state_dict().items()
    }
    changed = {name for name, value in joint.state_dict().items() if not torch.equal(value, start[name])}
    weights = {f"{path}.weight" for path, module in joint.named_modules() if isinstance(module, nn.Conv2d)}
    assert normalisations or not any(isinstance(module, _BatchNorm) for module in parted.above.modules())
    assert not changed & normalisations
    assert weights <= changed
    assert any(name.startswith("above.") for name in weights)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_a_joint_network_leaves_its_batch_as_it_was_for_the_next_one(nano: Detector) -> None:
    parted = split_trunk(nano, 0.5)
    with torch.inference_mode():
        crossing = tuple(one.clone() for one in parted.below(images_of(nano)))
    kept = [one.clone() for one in crossing]
    tuned(Joint(parted.above, head_of(nano)), crossing, steps=1)
    assert all(torch.equal(one, other) for one, other in zip(crossing, kept, strict=True))


def exported(detector: Detector, whole: DetectorNetwork) -> onnx.ModelProto:
    names = [f"raw{number}" for number in range(len(detector.maps))]
    return simplify(export_network(whole, detector.preprocessing.shape, names, detector.reference.name))


def kernels(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "Conv" for node in model.graph.node)


@pytest.mark.slow
def test_graphs_of_a_frozen_and_a_tuned_head_have_all_below_the_cut_once(detector: Detector) -> None:
    parted, images = split_trunk(detector, 0.3), images_of(detector)
    joint = Joint(parted.above, head_of(detector))
    with torch.inference_mode():
        crossing = parted.below(images)
    tuned(joint, tuple(one.clone() for one in crossing))
    wholes = {
        "combined": DetectorNetwork(detector.trunk(), head_of(detector)),
        "combined@cut": DetectorNetwork(parted.below, joint),
    }
    graphs = {name: exported(detector, whole) for name, whole in wholes.items()}
    fused = fuse(graphs).model
    above = len(convolutions(joint))
    assert kernels(fused) == kernels(graphs["combined"]) + above
    outputs = run(fused, images.numpy())
    for name, whole in wholes.items():
        for number, raw in enumerate(raw_outputs(whole, images.numpy())):
            torch.testing.assert_close(
                torch.from_numpy(outputs[f"{name}/raw{number}"]), torch.from_numpy(raw), rtol=1e-3, atol=1e-4
            )


def test_a_second_level_reads_what_the_first_says_in_the_same_pass(nano: Detector) -> None:
    first, images = head_of(nano), images_of(nano)
    second = second_level_head(head_of(nano), [output.out_channels for output in first.outputs])  # type: ignore[misc]
    with torch.no_grad():
        for output in second.outputs:
            output.weight.normal_(std=0.1)  # type: ignore[operator, union-attr]
        maps = nano.trunk()(images)
        expected = second(maps, first(maps))
        whole = DetectorNetwork(nano.trunk(), second, first)
        for ours, theirs in zip(raw_outputs(whole, images.numpy()), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs)


def test_tensors_of_all_heads_have_names_of_their_own(nano: Detector) -> None:
    head, joint = head_of(nano), Joint(split_trunk(nano, 0.2).above, head_of(nano))
    found = tensors({"signs": head, "signs@cut": joint})
    assert {name.partition("/")[0] for name in found} == {"signs", "signs@cut"}
    assert len(found) == len(head.state_dict()) + len(joint.state_dict())
    assert (found["signs/outputs.0.bias"] == head.outputs[0].bias.detach().numpy()).all()  # type: ignore[union-attr]
