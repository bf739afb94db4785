"""Three studies as they come out of a run.

One has three deployments in fp32 and int8, and an fp16 that the runtime cannot run. Another swept the cut. The third is
of detectors.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetl.artifacts.detector_bundle import DetectionHead, YoloScale
from edgetl.artifacts.measurements import AccuracyEstimate, StepTime, Waterfall
from edgetl.artifacts.results import (
    Accuracy,
    AveragePrecision,
    Comparison,
    DeploymentResult,
    EngineFile,
    LabelPrecision,
    Latency,
    MeanAveragePrecision,
    Results,
    Tree,
)
from edgetl.config import BudgetSettings
from edgetl.report.verdict import decide

IMAGES = 2000
NO_FP16 = "onnxruntime 1.31 runs FP16 graphs on a CPU by casting them to FP32; choose fp32 or int8 here"


def estimate(value: float, n: int, half_width: float = 0.011) -> AccuracyEstimate:
    return AccuracyEstimate(value=value, low=max(value - half_width, 0.0), high=min(value + half_width, 1.0), n=n)


def row(name: str, precision: str, share: float, p50: float, megabytes: float, engines: int = 1) -> DeploymentResult:
    files = tuple(
        EngineFile(
            file=f"engines/{name}.{position}.{precision}.onnx",
            sha256=f"{position:064x}",
            bytes=int(megabytes * 1e6 / engines),
        )
        for position in range(engines)
    )
    return DeploymentResult(
        name=name,
        precision=precision,
        runtime="onnxruntime",
        engines=files,
        accuracy=Accuracy(
            overall=estimate(share, IMAGES),
            groups={
                "vehicles": estimate(share + 0.021, IMAGES * 2 // 5, 0.015),
                "animals": estimate(share - 0.014, IMAGES * 3 // 5, 0.016),
            },
            masked={
                "vehicles": estimate(share + 0.034, IMAGES * 2 // 5, 0.013),
                "animals": estimate(share + 0.004, IMAGES * 3 // 5, 0.015),
            },
        ),
        latency_ms=Latency(
            p50=p50,
            p90=p50 * 1.06,
            p99=p50 * 1.21,
            mean=p50 * 1.01,
            low=p50 * 0.988,
            high=p50 * 1.012,
            samples=1500,
            rounds=30,
            stable=True,
        ),
        throughput_ips=1000 / p50,
        memory_mb=38.0 + 3.1 * megabytes,
    )


def compare(rows: list[DeploymentResult], half_width: float = 0.0055, spread: float = 0.02) -> list[Comparison]:
    """Every pair once, for both metrics, with intervals around the true difference and ratio."""
    pairs = []
    for a, b in itertools.combinations([row for row in rows if row.accuracy], 2):
        assert a.accuracy and b.accuracy and a.latency_ms and b.latency_ms
        difference = a.accuracy.overall.value - b.accuracy.overall.value
        ratio = a.latency_ms.p50 / b.latency_ms.p50
        pairs += [
            Comparison(
                a=a.title,
                b=b.title,
                metric="accuracy",
                difference=difference,
                low=difference - half_width,
                high=difference + half_width,
            ),
            Comparison(
                a=a.title, b=b.title, metric="latency", ratio=ratio, low=ratio * (1 - spread), high=ratio * (1 + spread)
            ),
        ]
    return pairs


def unstable(measured: DeploymentResult, why: str = "p50 is only known to 9 %") -> DeploymentResult:
    assert measured.latency_ms
    latency = measured.latency_ms.model_copy(update={"stable": False, "why_unstable": why})
    return measured.model_copy(update={"latency_ms": latency})


def waterfall(*ms: float) -> Waterfall:
    names = ("decode", "preprocess", "inference", "post-process")
    steps = (StepTime(name=name, ms=one, fraction=one / sum(ms)) for name, one in zip(names, ms, strict=True))
    return Waterfall(images=8, samples=400, total_ms=sum(ms), steps=tuple(steps))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Builders: ``make.row``, ``make.compare``, ``make.unstable``, ``make.waterfall``."""
    return SimpleNamespace(row=row, compare=compare, unstable=unstable, waterfall=waterfall)


@pytest.fixture
def rows() -> list[DeploymentResult]:
    return [
        row("combined", "fp32", 0.9315, 4.12, 4.76),
        row("combined", "int8", 0.9280, 2.05, 1.31),
        row("specialised", "fp32", 0.9330, 8.21, 9.44, engines=2),
        row("specialised", "int8", 0.9265, 4.07, 2.58, engines=2),
        row("shared", "fp32", 0.9330, 4.15, 4.77),
        row("shared", "int8", 0.9270, 2.16, 1.32),
        DeploymentResult(name="combined", precision="fp16", runtime="onnxruntime", unsupported=NO_FP16),
    ]


@pytest.fixture
def results(rows: list[DeploymentResult]) -> Results:
    comparisons, budget = compare(rows), BudgetSettings(max_accuracy_drop=0.015, max_latency_ms=5.0)
    return Results(
        study="vehicles-and-animals",
        environment={
            "edgetl": "0.1.0",
            "python": "3.11.9",
            "platform": "Linux-6.1-x86_64",
            "device": {"cpu": "AMD EPYC 9354", "cores": 2, "gpu": None},
            "packages": {"numpy": "2.4.6", "onnxruntime": "1.31.1", "onnx": "1.23.2"},
            "threads": 1,
        },
        data={
            "format": "image-folder",
            "counts": {"train": 9000, "val": 1000, "test": IMAGES},
            "labels": {"vehicles": ["airplane", "ship"], "animals": ["bird", "cat", "deer"]},
            "broken": [{"path": "train/cat/0042.png", "reason": "the file is cut off"}],
            "notes": ["3 images of train are also in test and were dropped from train"],
        },
        training={
            "backbone": "torchvision/squeezenet1_1",
            "parameters": 722496,
            "heads": [
                {"name": "combined", "classes": 5, "l2": 1e-4, "val_accuracy": 0.934},
                {"name": "vehicles", "classes": 3, "l2": 1e-3, "val_accuracy": 0.957},
                {"name": "animals", "classes": 4, "l2": 1e-3, "val_accuracy": 0.921},
            ],
        },
        budget=budget.model_dump(exclude_none=True),
        deployments=tuple(rows),
        comparisons=tuple(comparisons),
        verdict=decide(rows, comparisons, budget),
    )


GROUPS = ("vehicles", "animals")

# From the images' side up: accuracy with a head for each group and with one for all, both on validation; MFLOPs below.
CUTS = {
    "images": (0.9400, 0.9380, 0),
    "features.3": (0.9420, 0.9390, 90),
    "features.7": (0.9415, 0.9350, 190),
    "features.11": (0.9310, 0.9260, 310),
    "features.14": (0.9200, 0.9150, 410),
    "top": (0.9050, 0.9040, 600),
}
TRUNCATED = "truncated-features.11"

MEASURED = (
    "combined",
    "combined@features.14",
    "combined@features.7",
    "combined@images",
    f"combined@{TRUNCATED}",
    "shared",
    "branched@features.14",
    "branched@features.11",
    "branched@features.7",
    "branched@features.3",
    "branched@images",
    "branched@features.7,top",
    f"branched@{TRUNCATED},features.7",
    "specialised",
    "specialised@features.7",
)


@pytest.fixture
def on_the_way(results: Results) -> Results:
    """The first study, with the way from file to answer of all that ran."""
    way = {"waterfall": waterfall(4.0, 2.0, 3.0, 1.0)}
    rows = (one if one.unsupported else one.model_copy(update=way) for one in results.deployments)
    return results.model_copy(update={"deployments": tuple(rows)})


def tree(deployment: str, *cuts: str) -> Tree:
    """A tree of the swept study: its accuracy and cost by what its heads cost and know."""
    name = deployment if set(cuts) == {"top"} else f"{deployment}@{','.join(dict.fromkeys(cuts))}"
    name = "shared" if name == "branched" else name
    shares = [0.896 if cut == TRUNCATED else CUTS[cut][deployment == "combined"] for cut in cuts]
    below = [310 if cut == TRUNCATED else CUTS[cut][2] for cut in cuts]
    ends = [310 if cut == TRUNCATED else 600 for cut in cuts]
    if deployment == "specialised":
        flops = sum(ends)
    else:  # the deepest trunk once, and all that is tuned
        trunk = max(below)
        flops = trunk + sum(end - under for end, under in zip(ends, below, strict=True))
    return Tree(
        name=name,
        deployment="shared" if name == "shared" else deployment,
        cuts=dict(zip(("combined",) if deployment == "combined" else GROUPS, cuts, strict=True)),
        val_accuracy=sum(shares) / len(shares),
        flops=flops * 1_000_000,
        parameters=2_200_000 + 1000 * flops,
        relative_latency=flops * 1.9 + 40.0 * len(set(cuts)),
        measured=name in MEASURED,
    )


def forest() -> tuple[Tree, ...]:
    places = (*CUTS, TRUNCATED)
    pairs = list(itertools.product(places, repeat=2))
    return (
        *(tree("combined", cut) for cut in places),
        *(tree("branched", *cuts) for cuts in pairs),
        *(tree("specialised", *cuts) for cuts in pairs),
    )


def swept_rows() -> list[DeploymentResult]:
    """The measured trees in fp32 and int8, and a cascade."""
    rows = []
    by_name = {one.name: one for one in forest()}
    for name, precision in itertools.product(MEASURED, ("fp32", "int8")):
        one, fast = by_name[name], precision == "int8"
        p50 = (0.4 + one.flops / 1e9 * 6.2) / (1.9 if fast else 1.0)
        engines = 2 if one.deployment == "specialised" else 1
        share = one.val_accuracy - 0.004 - 0.003 * fast
        measured = row(name, precision, share, p50, one.parameters * (1 if fast else 4) / 1e6, engines)
        rows.append(measured.model_copy(update={"cuts": one.cuts, "flops": one.flops}))
    cuts = {"combined": "top", **dict.fromkeys(GROUPS, "top")}
    cascade = row("cascade", "int8", 0.901, 2.61, 2.3, engines=3)
    return [*rows, cascade.model_copy(update={"cuts": cuts, "flops": 760_000_000})]


@pytest.fixture
def swept(results: Results) -> Results:
    """The sample study with the cut swept."""
    rows = swept_rows()
    comparisons, budget = compare(rows), BudgetSettings(max_accuracy_drop=0.02, max_latency_ms=5.0)
    heads = [
        {"name": "combined", "cut": "top", "truncated": False, "val_accuracy": 0.904},
        {"name": "vehicles@features.7", "cut": "features.7", "truncated": False, "val_accuracy": 0.957}
        | {"probe_val_accuracy": 0.914, "epochs": 7},
        {"name": "animals@images", "cut": "images", "truncated": False, "val_accuracy": 0.911}
        | {"probe_val_accuracy": 0.913, "epochs": 4},
    ]
    update = {
        "training": {
            "backbone": "torchvision/mobilenet_v2",
            "heads": heads,
            "cascade": {"threshold": 0.35, "fired": {"vehicles": 0.41, "animals": 0.62}},
        },
        "budget": budget.model_dump(exclude_none=True),
        "deployments": tuple(rows),
        "comparisons": tuple(comparisons),
        "trees": forest(),
        "verdict": decide(rows, comparisons, budget),
    }
    return results.model_copy(update=update)


ROAD = {"vehicles": ("car", "tram"), "people": ("pedestrian",)}
OBJECTS = {"car": 1204, "tram": 0, "pedestrian": 23}
FLOPS = {"combined": 5_710_000_000, "specialised": 11_400_000_000, "shared": 5_780_000_000, "cascade": 5_930_000_000}
SCALES = (
    YoloScale(anchors=((116.0, 90.0), (156.0, 198.0), (373.0, 326.0))),
    YoloScale(anchors=((10.0, 13.0), (16.0, 30.0), (33.0, 23.0))),
)


def precision(ap50: float, half_width: float) -> MeanAveragePrecision:
    return MeanAveragePrecision(ap50=estimate(ap50, 300, half_width), ap=estimate(ap50 / 2, 300, half_width / 2))


def detector(name: str, kind: str, share: float, p50: float, megabytes: float, engines: int = 1) -> DeploymentResult:
    """A row whose mAP@0.5 is ``fraction``, in the precision ``kind``: pedestrians are few and hard, trams are none."""
    overall, cars, people = precision(share, 0.04), precision(share + 0.12, 0.03), precision(share - 0.12, 0.16)
    car, pedestrian = (
        LabelPrecision(objects=OBJECTS[label], ap50=one.ap50, ap=one.ap)
        for label, one in (("car", cars), ("pedestrian", people))
    )
    found = AveragePrecision(
        overall=overall,
        groups={"vehicles": cars, "people": people},
        labels={"car": car, "tram": LabelPrecision(objects=0), "pedestrian": pedestrian},
    )
    accuracy = Accuracy(overall=overall.ap50, groups={group: one.ap50 for group, one in found.groups.items()})
    figures = {"accuracy": accuracy, "average_precision": found, "flops": FLOPS[name.partition("@")[0]]}
    return row(name, kind, share, p50, megabytes, engines).model_copy(update=figures)


def detector_rows() -> list[DeploymentResult]:
    """As a study with ``unfreeze`` has them: ``combined`` and ``specialised`` have their own last layers too."""
    apart = dict.fromkeys(ROAD, "top")
    alone, tuned = {"combined": "top"}, {"combined": "layers.52"}
    return [
        one.model_copy(update={"cuts": cuts})
        for one, cuts in (
            (detector("combined", "fp32", 0.512, 21.3, 12.1), alone),
            (detector("combined", "int8", 0.498, 9.4, 3.3), alone),
            (detector("combined@layers.52", "fp32", 0.549, 21.4, 12.1), tuned),
            (detector("combined@layers.52", "int8", 0.541, 9.5, 3.3), tuned),
            (detector("specialised", "int8", 0.503, 18.8, 6.5, engines=2), apart),
            (detector("specialised@layers.52", "int8", 0.552, 18.9, 6.5, engines=2), dict.fromkeys(ROAD, "layers.52")),
            (detector("shared", "int8", 0.503, 9.9, 3.4), apart),
            (detector("cascade", "int8", 0.524, 11.8, 4.1, engines=3), {**alone, **apart}),
        )
    ]


def detection_heads() -> list[DetectionHead]:
    def head(name: str, classes: tuple[str, ...], epochs: int, before: float, after: float) -> DetectionHead:
        known = tuple(label for label in classes if label == "car")
        figures = {"epochs": epochs, "untrained_ap50": before, "val_ap50": after, "known": known}
        return DetectionHead(name=name, classes=classes, scales=SCALES, **figures)

    labels = tuple(label for members in ROAD.values() for label in members)
    tuned = head("combined@layers.52", labels, 4, 0.214, 0.548)
    second = head("people@cascade", ROAD["people"], 9, 0.377, 0.391)
    return [
        head("combined", labels, 41, 0.214, 0.519),
        head("vehicles", ROAD["vehicles"], 38, 0.402, 0.611),
        head("people", ROAD["people"], 60, 0.016, 0.377),
        second.model_copy(update={"first_level": "combined"}),
        tuned.model_copy(update={"cut": "layers.52", "frozen_ap50": 0.519}),
    ]


@pytest.fixture
def detected(results: Results) -> Results:
    """A study of detectors."""
    rows, budget = detector_rows(), BudgetSettings(max_accuracy_drop=0.02, min_accuracy=0.5)
    comparisons = compare(rows, half_width=0.012)
    update = {
        "study": "road",
        "metric": "mAP@0.5",
        "data": {
            "format": "yolo",
            "groups": {group: list(labels) for group, labels in ROAD.items()},
            "images": {"train": 1400, "val": 300, "test": 300},
            "boxes": {"train": 5810, "val": 1240, "test": 1227},
            "broken": [],
            "notes": ["faults of annotations: outside the image: clipped (3)"],
        },
        "training": {
            "backbone": {"name": "darknet/yolov3.cfg", "mean": [0.0, 0.0, 0.0]},
            "detectors": [head.model_dump(mode="json") for head in detection_heads()],
            "cascade": {"threshold": 0.35, "fired": {"vehicles": 0.81, "people": 0.12}},
        },
        "budget": budget.model_dump(exclude_none=True),
        "deployments": tuple(rows),
        "comparisons": tuple(comparisons),
        "verdict": decide(rows, comparisons, budget, "mAP@0.5"),
    }
    return results.model_copy(update=update)


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parent / "golden"
