"""The calibration cache of TensorRT up to 10 and of DLA: written, and read back."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.config import CalibrationRecipe
from edgetl.errors import EdgetlError
from edgetl.graph.calibration_cache import cache_tensors, cache_text, read_cache, table_from_cache, version_number
from edgetl.graph.model import model_bytes
from edgetl.graph.parity import max_difference, run
from edgetl.graph.quantize import quantize
from tests.calibrating import calibrate

HEADER = "TRT-100300-EntropyCalibration2\n"


@pytest.fixture(scope="module")
def table(network, images, record):
    return calibrate(network, [images(8)], CalibrationRecipe(method="mse"), record(8), cache_tensors(network))


@pytest.mark.parametrize(
    ("version", "number"), [("8.5.2", 8502), ("8.6.2", 8602), ("10.3.0", 100300), ("10.13", 101300), ("7.1.3", 7103)]
)
def test_versions_are_written_as_tensorrt_writes_them(version, number):
    assert version_number(version) == number


@pytest.mark.parametrize("version", ["11.0.0", "10", "ten", "6.0.1", "8.6.2.3", ""])
def test_a_version_that_reads_no_cache_is_refused(version):
    with pytest.raises(EdgetlError, match="reads no calibration cache"):
        version_number(version)


def test_every_float_tensor_of_the_plain_graph_has_its_scale(network, table):
    first, *lines = cache_text(network, table, "8.6.2").splitlines()
    assert first == "TRT-8602-EntropyCalibration2"
    names = [line.rsplit(": ", 1)[0] for line in lines]
    made = [name for node in network.graph.node for name in node.output]
    assert names == ["images", *made]
    ranges = table.by_name()
    for line in lines:
        name, digits = line.rsplit(": ", 1)
        scale = struct.unpack(">f", bytes.fromhex(digits))[0]
        if not name.startswith(("maxpool", "flatten", "features")):
            assert scale == np.float32(ranges[name].amax / 127)


def test_what_only_passes_values_on_has_the_scale_of_what_went_in(network, table):
    scales = read_cache(cache_text(network, table, "10.3.0").encode(), "c")
    pool = next(node for node in network.graph.node if node.op_type == "MaxPool")
    assert scales[pool.output[0]] == scales[pool.input[0]]


def test_read_back_it_makes_the_same_tensorrt_graph(network, table):
    scales = read_cache(cache_text(network, table, "10.3.0").encode(), "c")
    again = table_from_cache(network, scales, "tensorrt", "c")
    assert model_bytes(quantize(network, again, "tensorrt")) == model_bytes(quantize(network, table, "tensorrt"))


def test_onnx_runtime_gets_all_levels_where_nothing_is_negative(network, table, images):
    scales = read_cache(cache_text(network, table, "10.3.0").encode(), "c")
    again = table_from_cache(network, scales, "onnxruntime", "c").by_name()
    assert all(found.low == 0.0 for name, found in again.items() if name.startswith(("relu", "clip")))
    quantised = quantize(network, table_from_cache(network, scales, "onnxruntime", "c"), "onnxruntime")
    assert max_difference(run(network, images(8)), run(quantised, images(8))) < 0.05


@given(scale=st.floats(2.0**-100, 2.0**100, width=32), name=st.from_regex(r"[!-~]([ -~]{0,30}[!-~])?", fullmatch=True))
def test_any_name_and_any_scale_come_back_padded_or_not(name, scale):
    digits = struct.pack(">f", scale).hex()
    for written in (digits, digits.lstrip("0"), digits.upper()):
        assert read_cache(f"{HEADER}{name}: {written}\n".encode(), "c") == {name: scale}


@pytest.mark.parametrize(
    "line", ["images 3c010204", "images: xyz", "images: 3c0102041", "images: 00000000", "images: 7f800000",
             ": 3c010204", "images: bc010204", "images: 3c010204\nimages: 3c010204", "images:3c010204", "images: "]
)  # fmt: skip
def test_a_damaged_line_is_named_by_number(line):
    with pytest.raises(EdgetlError, match=r"c, line [23]: .* is not NAME: HEX"):
        read_cache((HEADER + line + "\n").encode(), "c")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"images: 3c010204\n", b"\x08\x07\x12", b"TRT-8602\n"])
def test_what_is_no_cache_is_refused(content):
    with pytest.raises(EdgetlError, match="c is no calibration cache"):
        read_cache(content, "c")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content):
    with suppress(EdgetlError):
        assert all(scale > 0 for scale in read_cache(HEADER.encode() + content, "c").values())


def test_a_cache_of_another_graph_is_refused(network):
    with pytest.raises(EdgetlError, match=r"c has no scale for \d+ of \d+ tensors, the first 'div_1'"):
        table_from_cache(network, {"other": 1.0}, "tensorrt", "c")
