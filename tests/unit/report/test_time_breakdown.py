from __future__ import annotations

from types import SimpleNamespace

from rich.console import Console

from edgetl.artifacts.measurements import Energy, EngineLayers, LayerTime, Memory, PartTime
from edgetl.artifacts.results import Results
from edgetl.report.energy_and_memory import energy_line, energy_sentence, memory_line
from edgetl.report.html import render_html
from edgetl.report.time_breakdown import layer_tables, waterfall_sentence, waterfall_table
from edgetl.report.waterfall_plot import waterfall_figure, waterfall_sentences


def layers(node: str | None = "/features/3/Conv") -> EngineLayers:
    one = LayerTime(layer="r_nchwc", node=node, operator="Conv", part="trunk", ms=6.0, fraction=0.75)
    other = LayerTime(layer="head", node="head/a/linear", operator="Gemm", part="a", ms=2.0, fraction=0.25)
    return EngineLayers(
        engine="m.onnx", source="ONNX Runtime's profiler", runs=30, sum_ms=8.0, profiled_ms=9.0, latency_ms=7.5,
        layers=(other, one), blocks=(PartTime(name="features", layers=2, ms=8.0, fraction=1.0),),
        parts=(PartTime(name="trunk", layers=1, ms=6.0, fraction=0.75),
               PartTime(name="a", layers=1, ms=2.0, fraction=0.25)),
    )  # fmt: skip


def printed(*parts: object, width: int = 80) -> str:
    console = Console(width=width)
    with console.capture() as text:
        for part in parts:
            console.print(part)
    return text.get()


def test_layers_are_named_by_their_nodes_the_longest_first_and_wholes_are_told() -> None:
    text = printed(*layer_tables(layers()))
    assert "8.00 ms in layers of 9.00 ms with ONNX Runtime's profiler, 7.50 ms without it" in " ".join(text.split())
    assert text.index("/features/3/Conv (Conv)") < text.index("head/a/linear (Gemm)")
    assert "trunk (1 layer)" in text and "75.0" in text
    assert max(map(len, text.splitlines())) <= 80


def test_names_from_files_are_neither_markup_nor_escapes() -> None:
    text = printed(*layer_tables(layers("[red]x[/red]\x1b[31m")))
    assert "[red]x[/red]" in text and "\x1b" not in text


def test_each_step_begins_where_the_last_one_ends(make: SimpleNamespace) -> None:
    table = printed(waterfall_table("m.onnx", make.waterfall(4.0, 2.0, 3.0, 1.0)))
    bars = [line for line in table.splitlines() if "#" in line]
    begins = [line.index("#") for line in bars]
    ends = [line.rindex("#") + 1 for line in bars]
    assert begins[1:] == ends[:-1]
    assert [end - begin for begin, end in zip(begins, ends, strict=True)] == [12, 6, 9, 3]


def test_where_inference_is_the_smaller_part_that_is_said(make: SimpleNamespace) -> None:
    assert "70.0 % of it is not inference" in waterfall_sentence(make.waterfall(4.0, 2.0, 3.0, 1.0))
    assert "not inference" not in waterfall_sentence(make.waterfall(1.0, 1.0, 7.0, 1.0))


def test_the_report_draws_the_way_of_every_deployment(results: Results, on_the_way: Results) -> None:
    figure = waterfall_figure(on_the_way)
    assert figure is not None
    assert [sum(trace["x"][0] for trace in figure["data"])] == [10.0]
    assert len(figure["data"][0]["x"]) == sum(row.unsupported is None for row in on_the_way.deployments)
    assert "not inference (up to 70.0 %)" in (waterfall_sentences(on_the_way) or "")
    page = render_html(on_the_way)
    assert 'id="waterfall"' in page and "From file to answer" in page
    assert 'id="waterfall"' not in render_html(results)


def test_what_disturbed_the_measurement_is_on_the_page(results: Results) -> None:
    reason = "the GPU ran at 306 MHz, below its 918: sudo jetson_clocks"
    assert reason in render_html(results.model_copy(update={"disturbances": (reason,)}))
    assert "The machine changed while" not in render_html(results)


def test_energy_is_told_with_its_source_or_with_the_reason(results: Results) -> None:
    measured = Energy(
        mj=12.5, low=12.0, high=13.0, source="INA3221 power monitor", total_of=("VDD_IN",), idle_w=4.0, active_w=9.0
    )
    row = results.deployments[0]
    known = row.model_copy(update={"energy": measured, "energy_mj": 12.5})
    unknown = row.model_copy(update={"energy": Energy(reason="no meter")})
    assert "by INA3221 power monitor (VDD_IN)" in (energy_sentence([unknown, known]) or "")
    assert energy_sentence([unknown]) == "Energy is unknown: no meter."
    assert energy_sentence([row]) is None
    assert energy_line(measured).startswith(
        "energy: 12.5 mJ for one inference over idle (12.0 to 13.0), 9.00 W at work"
    )
    assert energy_line(Energy(reason="no meter")) == "energy: unknown (no meter)"
    assert "Energy is unknown: no meter." in render_html(results.model_copy(update={"deployments": (unknown,)}))


def test_memory_that_the_gpu_shares_is_told_apart() -> None:
    shared = Memory(process_mb=100.0, system_mb=240.0, device_mb=130.0, device_scratch_mb=20.0, shared=True)
    assert memory_line(shared) == (
        "memory: 100 MB in the process; 130 MB on the GPU, 20.0 of it scratch memory; 240 MB less in the machine, "
        "which shares its memory with the GPU"
    )
    assert memory_line(Memory(reason="no driver")) == "memory: unknown (no driver)"
    assert memory_line(Memory(process_mb=12.3, system_mb=12.0)) == "memory: 12.3 MB in the process"
