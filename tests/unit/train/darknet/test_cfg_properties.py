"""Any .cfg file is read as what it says, or refused in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra train")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgetl.errors import EdgetlError  # noqa: E402
from edgetl.train.darknet.cfg import Cfg, read_cfg  # noqa: E402
from edgetl.train.darknet.network import build  # noqa: E402
from edgetl.train.darknet.reading import ACTIVATIONS  # noqa: E402

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
TOP = "[convolutional]\nfilters=12\nsize=1\nactivation=linear\n[yolo]\nmask=0,1\nanchors=1,2,3,4\nnum=2\nclasses=1\n"


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400).map(lambda text: ("[net]\n" + text).encode())))
def test_any_file_is_a_network_or_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.cfg"
    path.write_bytes(content)
    _read_or_refused(path)


_NUMBER = st.one_of(st.integers(-4, 9), st.sampled_from([16, 65, 10**6, -(10**12), 0.5, "nan", "1e400", "", "x"]))
_VALUE = st.one_of(
    _NUMBER.map(str),
    st.lists(_NUMBER, min_size=1, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
    st.sampled_from([*ACTIVATIONS, "none"]),
)
_KEY = st.sampled_from(
    (
        *("filters", "size", "stride", "stride_x", "pad", "padding", "groups", "group_id", "dilation", "activation"),
        *("batch_normalize", "layers", "from", "scale", "scale_wh", "mask", "anchors", "num", "classes", "softmax"),
        *("new_coords", "scale_x_y", "antialiasing", "tree", "width", "height"),
    )
)
_NAME = st.sampled_from(
    (
        *("convolutional", "maxpool", "local_avgpool", "avgpool", "route", "shortcut", "sam", "scale_channels"),
        *("upsample", "reorg", "dropout", "softmax", "cost", "yolo", "region", "net", "connected"),
    )
)
_OPTIONS = st.lists(st.tuples(_KEY, _VALUE), max_size=5)


@settings(max_examples=150)
@given(st.lists(st.tuples(_NAME, _OPTIONS), max_size=8))
def test_any_sections_are_read_or_one_line(tmp_path: Path, sections: list[tuple[str, list[tuple[str, str]]]]) -> None:
    path = tmp_path / "any.cfg"
    text = "".join(f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in held) for name, held in sections)
    path.write_text(NET + text + TOP, encoding="utf-8")
    _read_or_refused(path)


@st.composite
def _layers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Sections that fit to each other: each reads the one before it, and some an earlier one of their height."""
    sections: list[dict[str, Any]] = []
    channels, heights = [3], [32]
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["convolutional", "maxpool", "route", "shortcut", "upsample"]))
        alike = [layer for layer in range(number) if heights[layer + 1] == heights[-1]]
        if kind in {"route", "shortcut"} and number:
            source = draw(st.sampled_from(alike))
            counted = source if draw(st.booleans()) else source - number
            key, value = ("layers", f"-1, {counted}") if kind == "route" else ("from", str(counted))
            sections.append({"name": kind, key: value})
            channels.append(channels[-1] + channels[source + 1] if kind == "route" else channels[-1])
            heights.append(heights[-1])
        elif kind in {"maxpool", "upsample"} and 2 <= heights[-1] <= 64:
            sections.append({"name": kind, "stride": 2, "size": 2})
            channels.append(channels[-1])
            heights.append((heights[-1] + 1) // 2 if kind == "maxpool" else heights[-1] * 2)
        else:
            options = {
                "filters": draw(st.integers(1, 9)),
                "size": draw(st.sampled_from([1, 3, 5])),
                "pad": 1,
                "batch_normalize": draw(st.integers(0, 1)),
                "activation": draw(st.sampled_from(ACTIVATIONS)),
            }
            sections.append({"name": "convolutional", **options})
            channels.append(options["filters"])
            heights.append(heights[-1])
    return [
        {**one, "shape": shape}
        for one, shape in zip(sections, zip(channels[1:], heights[1:], strict=True), strict=True)
    ]


@settings(max_examples=60)
@given(_layers())
def test_what_a_file_says_is_what_is_read_and_what_is_computed(tmp_path: Path, layers: list[dict[str, Any]]) -> None:
    path = tmp_path / "generated.cfg"
    text = "".join(
        f"[{layer['name']}]\n" + "".join(f"{key} = {layer[key]}\n" for key in layer if key not in {"name", "shape"})
        for layer in layers
    )
    path.write_text(NET + text + TOP, encoding="utf-8")
    cfg = read_cfg(path)
    assert [layer.section.number for layer in cfg.layers] == list(range(len(layers) + 2))
    for read, layer in zip(cfg.layers, layers, strict=False):
        assert (read.section.name, (read.shape.channels, read.shape.height)) == (layer["name"], layer["shape"])
        written = {key: "".join(str(layer[key]).split()) for key in layer if key not in {"name", "shape"}}
        assert {option.key: option.value for option in read.section.options} == written
    computed = _shapes(cfg)
    assert computed == [(1, layer.shape.channels, layer.shape.height, layer.shape.width) for layer in cfg.layers]


def _shapes(cfg: Cfg) -> list[tuple[int, ...]]:
    network, shapes = build(cfg), []
    for module in network.layers:
        module.register_forward_hook(lambda *run: shapes.append(tuple(run[2].shape)))
    with torch.inference_mode():
        network(torch.zeros(1, 3, cfg.height, cfg.width))
    return shapes


def _read_or_refused(path: Path) -> None:
    try:
        cfg = read_cfg(path)
    except EdgetlError as error:
        message = str(error)
        assert str(path) in message and message.isprintable() and len(message) < 600
        return
    assert isinstance(cfg, Cfg)
    if sum(layer.shape.values for layer in cfg.layers) < 1 << 22:
        assert _shapes(cfg) == [(1, one.shape.channels, one.shape.height, one.shape.width) for one in cfg.layers]
