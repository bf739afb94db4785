"""A study as it comes out of a run: three deployments in fp32 and int8, and an fp16 that the runtime cannot run."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetl.artifacts.results import Accuracy, Comparison, EngineFile, Estimate, Latency, Measured, Results
from edgetl.config import Budget
from edgetl.report.verdict import decide

IMAGES = 2000
NO_FP16 = "onnxruntime 1.31 runs FP16 graphs on a CPU by casting them to FP32; choose fp32 or int8 here"


def estimate(value: float, n: int, half_width: float = 0.011) -> Estimate:
    return Estimate(value=value, low=max(value - half_width, 0.0), high=min(value + half_width, 1.0), n=n)


def row(name: str, precision: str, share: float, p50: float, megabytes: float, engines: int = 1) -> Measured:
    files = tuple(
        EngineFile(
            file=f"engines/{name}.{position}.{precision}.onnx",
            sha256=f"{position:064x}",
            bytes=int(megabytes * 1e6 / engines),
        )
        for position in range(engines)
    )
    return Measured(
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


def compare(rows: list[Measured], half_width: float = 0.0055, spread: float = 0.02) -> list[Comparison]:
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


def unstable(measured: Measured, why: str = "p50 is only known to 9 %") -> Measured:
    assert measured.latency_ms
    latency = measured.latency_ms.model_copy(update={"stable": False, "why_unstable": why})
    return measured.model_copy(update={"latency_ms": latency})


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Builders: ``make.row``, ``make.compare``, ``make.unstable``."""
    return SimpleNamespace(row=row, compare=compare, unstable=unstable)


@pytest.fixture
def rows() -> list[Measured]:
    return [
        row("combined", "fp32", 0.9315, 4.12, 4.76),
        row("combined", "int8", 0.9280, 2.05, 1.31),
        row("specialised", "fp32", 0.9330, 8.21, 9.44, engines=2),
        row("specialised", "int8", 0.9265, 4.07, 2.58, engines=2),
        row("shared", "fp32", 0.9330, 4.15, 4.77),
        row("shared", "int8", 0.9270, 2.16, 1.32),
        Measured(name="combined", precision="fp16", runtime="onnxruntime", unsupported=NO_FP16),
    ]


@pytest.fixture
def results(rows: list[Measured]) -> Results:
    comparisons, budget = compare(rows), Budget(max_accuracy_drop=0.015, max_latency_ms=5.0)
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
                {"name": "combined", "classes": 5, "regularisation": 1e-4, "val_accuracy": 0.934},
                {"name": "vehicles", "classes": 3, "regularisation": 1e-3, "val_accuracy": 0.957},
                {"name": "animals", "classes": 4, "regularisation": 1e-3, "val_accuracy": 0.921},
            ],
        },
        budget=budget.model_dump(exclude_none=True),
        deployments=tuple(rows),
        comparisons=tuple(comparisons),
        verdict=decide(rows, comparisons, budget),
    )


@pytest.fixture
def golden() -> Path:
    return Path(__file__).parent / "golden"
