"""Write the figures of README and guides from benchmarks/results. ``make docs`` runs it; a test keeps them true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def with_figures(page: Path) -> str:
    """A page's text with its figures section made anew."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    return before + BEGIN + PAGES[page]() + END + rest.split(END)[1]


def figures() -> str:
    job, heads = _read("main_job"), _read("train_heads")
    where = job["environment"]
    machine = f"{where['processor'].split(' [')[0]}, {where['cores']} cores, no GPU"
    floor, loop = heads["floor"]["ours_over_bare"], heads["loop"]
    sharing = job["shared_against_specialised"]["latency_of_specialised_over_shared"]["fp32"]
    apart = max(job["shared_against_specialised"]["max_abs_difference_of_a_probability"].values())
    drop = min(job["int8_minus_fp32_points"].values())
    rows = [
        ("images to all heads trained, against one bare forward pass of the trunk", _spread(floor)),
        (
            f"the loop that runs the frozen backbone every epoch, against that ({loop['epochs']} epochs each)",
            f"{loop['times_faster']:.0f} times as long",
        ),
        (
            "`combined` FP32 minus scikit-learn's LogisticRegression",
            f"{job['scikit_learn']['ours_minus_theirs_points']:+.2f} points",
        ),
        ("INT8 minus FP32, the worst deployment", f"{drop:+.2f} points"),
        (
            "`shared` against `specialised`, largest difference of a probability",
            f"{apart:.0e}" if apart else "0, bit for bit",
        ),
        (
            "latency of `specialised` over `shared`, two groups, one thread",
            f"{sharing['ratio']:.2f} ({sharing['low']:.2f} to {sharing['high']:.2f})",
        ),
        ("memory of feature extraction, ten times the images", f"{job['memory']['ratio']:.2f} times"),
        ("`edgetl --help` against `import click`", _spread(job["help"]["ratio"])),
    ]
    lines = "".join(f"| {what} | {figure} |\n" for what, figure in rows)
    return (
        f"CIFAR-10 images (15,000 + 5,000), MobileNetV2 at 128 pixels, two groups; {machine}; from "
        f"`benchmarks/results/`.\n\n| | |\n|---|---|\n{lines}\n"
        + "\n".join(part() for part in (_fused, _cuts, _detection, _precision, _trust))
    )


def _fused() -> str:
    result = _read("fuse")
    rows = "".join(
        f"| {name} | {_interval(one['one_after_another_over_fused'])} | {_interval(one['fused_over_trunk_alone'])} "
        f"| {one['fuse']['verified']['difference']:.1g} |\n"
        for name, one in result["backbones"].items()
    )
    return (
        f"Three specialists on one frozen trunk, fused ({result['image_size']} pixels, one thread, same machine):\n\n"
        "| trunk | one after another over fused | fused over the trunk alone | largest difference |\n"
        "|---|---|---|---|\n"
        f"{rows}"
    )


def _cuts() -> str:
    result = _read("cuts")
    images, trees, verdict = result["images"], result["trees"], result["second_run"]["verdicts"][0]
    rows = {(row["name"], row["precision"]): row for row in result["measured"]}
    chosen = rows[verdict["deployment"], verdict["precision"]]
    frozen = rows["shared", verdict["precision"]]
    gain = 100 * (chosen["accuracy"]["value"] - frozen["accuracy"]["value"])
    slower = chosen["latency_ms"]["p50"] / frozen["latency_ms"]["p50"]
    return (
        f"A sweep of the cut (MobileNetV2 at 96 pixels, {images['train']} training images, {images['test']} of test): "
        f"{trees['considered']:,} trees considered, {trees['measured']} measured; the estimate ranked their latencies "
        f"with a correlation of {trees['rank_correlation_of_estimate_and_latency']:.2f}. "
        "The best, the same in two runs with one seed: "
        f"`{verdict['deployment']}` in {verdict['precision']}, {gain:+.1f} points against `shared` all frozen, at "
        f"{slower:.2f} times its latency.\n"
    )


def _detection() -> str:
    result = _read("detection")
    rows = "".join(
        f"| {what} ({one['images']['train']} images, {len(one['labels'])} labels) | {_points(one['map50']['trained'])} "
        f"| {_gain(one, 'untrained')} | {_gain(one, 'untrained, known labels kept')} "
        f"| {_gain(one, 'random trunk, trained')} |\n"
        for what, one in (("BCCD, blood cells", result["bccd"]), ("coco128, roads", result["road"]))
    )
    cache = result["cache"]
    return (
        "A detector's ending retrained on MobileNetV2-YOLOv3's COCO weights, mAP@0.5 on test images, and the points "
        "gained over other endings (95 % interval; same machine):\n\n"
        "| data | mAP@0.5 | over an untrained ending | over what it began as | over a random trunk, equal time |\n"
        "|---|---|---|---|---|\n"
        f"{rows}\n"
        f"{cache['epochs']} epochs of {cache['images']} images, decoding and trunk included: the loop that runs the "
        f"frozen trunk in every epoch takes {_spread(cache['usual_loop_over_cached'])} as long as training on kept "
        f"maps, which take {cache['cache_megabytes']:.0f} MB of disk.\n"
    )


_GRAPHS = {
    "fp16": "FP16",
    "int8": "INT8 for TensorRT",
    "int8_guarded": "the same, with accuracy control",
    "int8_aware": "the same, its head trained for it",
    "int8_onnxruntime": "INT8 for ONNX Runtime's CPU",
    "modelopt": "ModelOpt",
    "ort_for_tensorrt": "ONNX Runtime, tuned for TensorRT",
    "ort_default": "ONNX Runtime, default",
}
_NETWORKS = {
    "mobilenet_v2": "MobileNetV2",
    "squeezenet1_0": "SqueezeNet",
    "tiny_darknet": "Tiny Darknet",
    "resnet": "a small ResNet",
}
_YOLO = "MobileNetV2-YOLOv3"


def _precision() -> str:
    result = _read("precision")
    models, speed = result["models"], result["resnet18_at_224_on_one_thread"]
    detector = result["detector"]
    found = {title: models[name] for name, title in _NETWORKS.items() if name in models} | {_YOLO: detector}
    rows = "".join(
        f"| {title} | {' | '.join(_lost(one['drop_points'].get(graph)) for one in found.values())} |\n"
        for graph, title in _GRAPHS.items()
        if any(graph in one["drop_points"] for one in found.values())
    )
    exact = [100 * models[name]["fp32"] for name in _NETWORKS if name in models] + [100 * detector["fp32"]["map50"]]
    return (
        f"Points that a precision loses against FP32 (95 % interval, image by image): of top-1 accuracy on "
        f"{result['images']['test']:,} test images of CIFAR-10, calibrated on {result['calibrated_on']}; and of "
        f"mAP@0.5 on {detector['judged_on']} images of COCO, calibrated on {detector['calibrated_on']}. "
        f"Accuracy control was given {100 * result['budget']:.1f} points and other images ({_machine(result)}):\n\n"
        f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}\n"
        f"| FP32 gets | {' | '.join(f'{one:.1f} %' for one in exact)} |\n{rows}\n"
        f"ResNet-18 at 224 pixels on one thread of that CPU: INT8 in ONNX Runtime's QDQ format is "
        f"{speed['times_as_fast']:.2f} times as fast as FP32 ({speed['low']:.2f} to {speed['high']:.2f}).\n"
    )


def _lost(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    if "drop" not in found:
        return "does not run"
    return f"{found['drop']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def _trust() -> str:
    result = _read("trust")
    rows = ""
    for what, one in result["planted"].items():
        found = "excluded" if what == "a copy" else "found"
        cells = [f"{some[found]} of {some['runs']}" for some in (one["all"], one["beside another program"])]
        rows += f"| {what} | {' | '.join(cells)} | {one['median_ratio']:.3f} |\n"
    bare = _interval(_read("overhead")["profile_over_bare_loop"])
    return (
        f"Whether `edgetl profile` can be trusted: an engine ({result['network']}) against a copy of itself that was "
        f"slowed down on purpose, {result['seconds']:.0f} s of measuring each ({_machine(result)}); "
        "in half of the runs another program starts half-way on the other core:\n\n"
        "| the engine against | called slower (a copy: called different) | beside another program | median ratio |\n"
        f"|---|---|---|---|\n{rows}\nLatency as it reports it, over a bare loop on the same session: {bare}.\n"
    )


def _machine(result: dict[str, Any]) -> str:
    return str(result["environment"]["processor"].split(" [")[0])


def helpers() -> str:
    result = _read("helpers")
    networks = result["milliseconds"]
    whats = list(next(iter(networks.values())))
    rows = "".join(
        f"| {what} | {' | '.join(_milliseconds(one[what]) for one in networks.values())} |\n" for what in whats
    )
    return (
        f"| ms, one image of {result['image_size']} pixels (least to greatest of {result['turns']} turns) "
        f"| {' | '.join(networks)} |\n|---|{'---|' * len(networks)}\n{rows}\nOn {_machine(result)}.\n"
    )


def _milliseconds(value: dict[str, float]) -> str:
    return f"{value['median']:.1f} ({value['least']:.1f} to {value['greatest']:.1f})"


def _points(value: dict[str, float]) -> str:
    return f"{100 * value['value']:.1f} % ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def _gain(result: dict[str, Any], other: str) -> str:
    pair = result["trained_minus"][other]
    return f"{100 * pair['difference']:+.1f} ({100 * pair['low']:+.1f} to {100 * pair['high']:+.1f})"


def _read(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _spread(values: dict[str, float]) -> str:
    return f"{values['median']:.2f} times ({values['least']:.2f} to {values['greatest']:.2f})"


PAGES = {ROOT / "README.md": figures, ROOT / "docs" / "measuring.md": helpers}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_figures(page), encoding="utf-8")
