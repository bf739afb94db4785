from __future__ import annotations

import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgetl import report
from edgetl.artifacts.results import DeploymentResult, Results
from edgetl.errors import EdgetlError, MissingExtraError
from edgetl.report.html import render_html
from edgetl.report.plots import accuracy_against_latency, group_accuracy

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """Elements, visible text, and the content of each script, as a browser's tokeniser finds them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def figures(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.scripts[0])
    return found


def test_the_page_holds_the_verdict_every_row_and_the_facts(results: Results) -> None:
    text = Page(render_html(results)).text
    assert "Ship combined int8" in text
    for reason in results.verdict.reasons:
        assert reason in text
    for row in results.deployments:
        assert row.title in text
    for fact in (
        "the file is cut off",
        "AMD EPYC 9354",
        "torchvision/squeezenet1_1",
        "accuracy drop at most 1.5 points",
    ):
        assert fact in text


def test_the_page_loads_nothing_from_anywhere(results: Results) -> None:
    page = Page(render_html(results))
    assert not [attributes for _, attributes in page.tags if {"src", "href"} & set(attributes)]
    policies = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv")]
    assert policies and str(policies[0]).startswith("default-src 'none'")
    assert any("plotly.js" in script for script in page.scripts)


def test_plotly_js_is_the_file_that_its_note_describes() -> None:
    folder = Path(report.__file__).parent / "plotly"
    bundle = (folder / "plotly-basic.min.js").read_bytes()
    note = (folder / "README.md").read_text()
    assert f"{hashlib.sha256(bundle).hexdigest()}  plotly-basic.min.js" in note
    version = re.search(rb"plotly\.js \(basic - minified\) v([\d.]+)", bundle)
    assert version and f"plotly.js {version[1].decode()} " in note


def test_hostile_names_stay_text_everywhere(results: Results) -> None:
    document = results.model_dump_json().replace("vehicles", json.dumps(HOSTILE)[1:-1])
    document = document.replace("combined", json.dumps(HOSTILE)[1:-1]).replace("cut off", json.dumps(HOSTILE)[1:-1])
    page = Page(render_html(Results.model_validate_json(document)))
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text


def test_hostile_layers_stay_text_everywhere(swept: Results) -> None:
    document = swept.model_dump_json().replace("features.7", json.dumps(HOSTILE)[1:-1])
    page = Page(render_html(Results.model_validate_json(document)))
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _ in page.tags}


def test_plotly_gets_hostile_names_as_escaped_text(results: Results) -> None:
    document = results.model_dump_json().replace("combined", json.dumps(HOSTILE)[1:-1])
    drawn = json.dumps(figures(Page(render_html(Results.model_validate_json(document)))))
    assert "<img" not in drawn
    assert "&lt;img" in drawn


def test_every_figure_has_its_place_in_the_page(results: Results) -> None:
    page = Page(render_html(results))
    places = {attributes.get("id") for tag, attributes in page.tags if tag == "div"}
    assert set(figures(page)) == {"overview", "group-0", "group-1"}
    assert set(figures(page)) <= places


def test_the_swept_page_has_its_pictures_every_name_and_what_tuning_gained(swept: Results) -> None:
    page = Page(render_html(swept))
    places = {attributes.get("id") for tag, attributes in page.tags if tag == "div"}
    assert {"overview", "depth", "search", "group-0"} <= set(figures(page)) <= places
    for row in swept.deployments:
        assert row.title in page.text
    for fact in (
        "105 trees, of which 15 were built and measured",
        "rank correlation",
        "What joint fine-tuning gained",
        "+410 MFLOPs",
        "vehicles on 41.0 %",
        "GFLOPs",
    ):
        assert fact in page.text


def test_the_page_of_detectors_names_its_metric_and_never_an_accuracy(detected: Results) -> None:
    page = Page(render_html(detected))
    for word in ("accura", "top-1", "masked", "compete"):
        assert word not in page.text.lower()
    for fact in (
        "mAP@0.5 against latency",
        "mAP@0.5 drop at most 2.0 points",
        "mAP@0.5 at least 50.0 %",
        "on 300 test images",
        "faults of annotations: outside the image: clipped (3)",
    ):
        assert fact in page.text
    places = {attributes.get("id") for tag, attributes in page.tags if tag == "div"}
    assert set(figures(page)) == {"overview", "group-0", "group-1"}
    assert set(figures(page)) <= places
    axes = [figure["layout"][axis]["title"]["text"] for figure in figures(page).values() for axis in ("xaxis", "yaxis")]
    assert axes.count("mAP@0.5, %") == 3
    assert "Accuracy" not in page.scripts[0]


def test_the_page_of_detectors_has_precision_of_every_label_and_every_head(detected: Results) -> None:
    text = "".join(Page(render_html(detected)).text.split())
    assert "pedestrian2342.126.1–58.121.113.1–29.1" in text, "the chosen one's"
    assert "mAP@[.5:.95]ofalldeployments" in text
    assert "combined@layers.523known:car21.451.954.8+2.94" in text


def test_the_page_of_classifiers_says_nothing_of_detectors(results: Results) -> None:
    text = Page(render_html(results)).text
    assert "mAP" not in text
    assert "Accuracy is top-1 on 2,000 test images" in text
    assert "all / masked" in text


def test_hostile_labels_and_heads_of_detectors_stay_text(detected: Results) -> None:
    document = detected.model_dump_json()
    for name in ("pedestrian", "people", "layers.52"):
        document = document.replace(name, json.dumps(HOSTILE)[1:-1])
    page = Page(render_html(Results.model_validate_json(document)))
    assert len(page.scripts) == 3
    assert "img" not in {tag for tag, _ in page.tags}


def test_groups_without_masked_figures_are_one_row_of_filled_points(detected: Results) -> None:
    (dots,) = group_accuracy(detected, "people")["data"]
    assert dots["y"] == list(range(len(dots["y"])))
    assert not [mark for mark in dots["marker"]["symbol"] if mark.endswith("open")]
    assert "mean over its labels" in dots["hovertext"][0]


def test_the_front_is_listed_and_a_chosen_one_that_is_not_on_it_is_named(swept: Results) -> None:
    page = Page(render_html(swept))
    assert "branched@features.3 int893.5 %, 3.83 ms" in page.text
    assert "Chosen: combined@features.7 int8 (92.8 %, 2.17 ms). It is not on the front" in page.text


def test_every_colour_of_a_figure_is_defined_by_the_page(swept: Results) -> None:
    source = render_html(swept)
    used = set(re.findall(r'"(--[a-z-]+)"', json.dumps(figures(Page(source)))))
    assert used
    assert all(source.count(f"{name}: ") >= 2 for name in used), "one for light, one for dark"


def test_limits_are_drawn_where_they_lie(results: Results) -> None:
    figure = accuracy_against_latency(results)
    assert figure is not None
    notes = {note["text"]: note for note in figure["layout"]["annotations"]}
    assert notes["limit 5.00 ms"]["x"] == 5.0
    # The best is 93.3 %, and the budget allows a drop of 1.5 points.
    assert notes["limit 91.8 %"]["y"] == pytest.approx(91.8)


def test_the_pareto_front_holds_nobody_who_is_beaten_in_both(results: Results) -> None:
    figure = accuracy_against_latency(results)
    assert figure is not None
    front = figure["data"][0]
    assert front["x"] == [2.05, 4.12, 4.15]
    assert front["y"] == pytest.approx([92.8, 93.15, 93.3])


def test_latencies_far_apart_get_a_logarithmic_axis(results: Results, make: SimpleNamespace) -> None:
    rows = (make.row("combined", "int8", 0.93, 0.5, 1), make.row("specialised", "fp32", 0.93, 50.0, 9, engines=2))
    figure = accuracy_against_latency(results.model_copy(update={"deployments": rows}))
    assert figure is not None
    assert figure["layout"]["xaxis"]["type"] == "log"


def test_a_page_without_any_run_row_still_says_why(results: Results, rows: list[DeploymentResult]) -> None:
    bare = results.model_copy(update={"deployments": (rows[-1],), "comparisons": ()})
    assert "casting them to FP32" in Page(render_html(bare)).text


def test_unstable_is_written_in_the_page(results: Results, rows: list[DeploymentResult], make: SimpleNamespace) -> None:
    rows[1] = make.unstable(rows[1])
    shaky = results.model_copy(
        update={"deployments": tuple(rows), "verdict": results.verdict.model_copy(update={"stable": False})}
    )
    text = Page(render_html(shaky)).text
    assert "UNSTABLE timing: measure again" in text
    assert text.count("UNSTABLE") > 2


def test_a_missing_package_is_one_line_with_the_remedy(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"the HTML report needs .*pip install 'edgetl\[report\]'"):
        render_html(results)


def test_a_figure_that_is_no_number_is_refused(results: Results, rows: list[DeploymentResult]) -> None:
    assert rows[0].latency_ms
    latency = rows[0].latency_ms.model_copy(update={"high": float("inf")})
    broken = results.model_copy(update={"deployments": (rows[0].model_copy(update={"latency_ms": latency}), *rows[1:])})
    with pytest.raises(EdgetlError, match="cannot be drawn"):
        render_html(broken)
