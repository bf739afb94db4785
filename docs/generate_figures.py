"""Write the figures of the README from benchmarks/results. ``make docs`` runs it; a test keeps them true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def with_figures(readme: str) -> str:
    """The README with the figures section made anew."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + figures() + END + rest.split(END)[1]


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
        f"`benchmarks/results/`.\n\n| | |\n|---|---|\n{lines}\n{_fused()}\n{_cuts()}\n{_detection()}"
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


if __name__ == "__main__":
    README.write_text(with_figures(README.read_text(encoding="utf-8")), encoding="utf-8")
