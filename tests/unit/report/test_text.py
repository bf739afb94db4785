from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from edgetl.artifacts.results import DeploymentResult, Results, Verdict
from edgetl.report.text import render_table, render_verdict


def printed(results: Results, width: int = 80, encoding: str = "utf-8") -> str:
    """What a pipe of that encoding gets."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, force_terminal=False).print(render_table(results))
    stream.seek(0)
    return "\n".join(line.rstrip() for line in stream.read().splitlines())


def with_rows(results: Results, rows: list[DeploymentResult]) -> Results:
    return results.model_copy(update={"deployments": tuple(rows)})


def test_the_table_of_the_sample_study_is_the_one_that_was_reviewed(results: Results, golden: Path) -> None:
    assert printed(results) == (golden / "table.txt").read_text().rstrip("\n")


def test_the_table_of_the_swept_study_is_the_one_that_was_reviewed(swept: Results, golden: Path) -> None:
    assert printed(swept) == (golden / "swept_table.txt").read_text().rstrip("\n")


def test_the_table_of_detectors_is_the_one_that_was_reviewed(detected: Results, golden: Path) -> None:
    assert printed(detected) == (golden / "detected_table.txt").read_text().rstrip("\n")


def test_long_names_are_whole_and_fit_eighty_columns_even_with_energy(swept: Results) -> None:
    name = "branched@features.denseblock4.denselayer16,truncated-features.denseblock3.denselayer24"
    row = swept.deployments[-1].model_copy(update={"name": name, "energy_mj": 12.3456})
    text = printed(with_rows(swept, [row, *swept.deployments]))
    assert max(map(len, text.splitlines())) <= 80
    lines = [line[2:18].strip() for line in text.splitlines()[5:]]
    assert "".join(lines).startswith(f"{name}int8")


def test_flops_are_shown_where_there_is_a_cut(results: Results, swept: Results) -> None:
    assert "GFLOPs" in printed(swept)
    assert "FLOPs" not in printed(results)


def test_a_cascade_is_explained_below_the_table(swept: Results) -> None:
    assert "vehicles on 41.0 % and" in printed(swept)


def test_the_table_fits_eighty_columns_even_with_energy(results: Results, rows: list[DeploymentResult]) -> None:
    rows = [row.model_copy(update={"energy_mj": 12.3456}) if row.accuracy else row for row in rows]
    text = printed(with_rows(results, rows))
    assert "12.3" in text
    assert "8.11-8.31" in text
    assert "vehicles 95.2/96.5" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_pipe_gets_no_colour_and_a_plain_encoding_gets_plain_characters(results: Results) -> None:
    assert "\x1b" not in printed(results)
    assert printed(results, encoding="ascii").isascii()


def test_only_the_chosen_row_is_marked(results: Results) -> None:
    marked = [line for line in printed(results).splitlines() if ">" in line]
    assert len(marked) == 1
    assert marked[0].split()[1] == "combined"


def test_an_unstable_latency_is_marked_in_its_row(
    results: Results, rows: list[DeploymentResult], make: SimpleNamespace
) -> None:
    assert "UNSTABLE" not in printed(results)
    rows[2] = make.unstable(rows[2])
    assert printed(with_rows(results, rows)).count("UNSTABLE") == 1


def test_a_row_that_was_not_run_says_why(results: Results) -> None:
    assert "not run: onnxruntime 1.31" in printed(results)


def test_a_cause_is_told_once(results: Results, rows: list[DeploymentResult]) -> None:
    text = printed(with_rows(results, [*rows, rows[-1].model_copy(update={"name": "shared"})]))
    assert text.count("not run: onnxruntime 1.31") == text.count("not run: as above") == 1


def test_names_are_shown_as_they_are_and_never_as_markup_or_escapes(
    results: Results, rows: list[DeploymentResult]
) -> None:
    hostile = rows[0].model_copy(update={"name": "[red]x[/]\x1b[2J"})
    text = printed(with_rows(results, [hostile]))
    assert "[red]x[/]?[2J" in text
    assert "\x1b" not in text


def test_a_verdict_without_a_deployment_says_that_nothing_meets_the_budget() -> None:
    verdict = Verdict(deployment=None, precision=None, budget_met=False, stable=True, reasons=("Because.",))
    assert render_verdict(verdict, 98) == "Verdict: nothing meets the budget\n  - Because."


def test_an_unstable_verdict_says_so_in_its_first_line(results: Results) -> None:
    verdict = results.verdict.model_copy(update={"stable": False})
    assert "UNSTABLE: measure again" in render_verdict(verdict, 98).splitlines()[0]
    assert "UNSTABLE" not in render_verdict(results.verdict, 98).splitlines()[0]


def test_reasons_are_wrapped_to_a_hundred_columns(results: Results) -> None:
    assert max(map(len, render_verdict(results.verdict, 98).splitlines())) <= 100
