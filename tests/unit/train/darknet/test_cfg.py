"""Darknet .cfg files: the syntax as Darknet reads it, and one clear line for what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra train")

from edgetl.errors import EdgetlError
from edgetl.train.darknet.cfg import read_cfg
from edgetl.train.darknet.sections import ConvolutionalSpec, DetectionSpec, RouteSpec, ShortcutSpec

Written = Callable[[str], Any]

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONV = "[convolutional]\nfilters=8\nsize=3\npad=1\nstride=1\nactivation=leaky\n"
ENDING = CONV.replace("filters=8", "filters=12").replace("leaky", "linear")
YOLO = "[yolo]\nmask=0,1\nanchors=1,2,3,4\nnum=2\nclasses=1\n"
TOP = ENDING + YOLO


# Syntax


def test_a_file_is_read_as_darknet_reads_it(tmp_path: Path) -> None:
    """Byte order mark, line ends, blanks, comments, numbers with comments behind them, short names of sections."""
    path = tmp_path / "odd.cfg"
    path.write_bytes(
        b"\xef\xbb\xbf# \xff\xfe not UTF-8\r\n"
        b"\r\n"
        b" [ network ] \r\n"
        b"; width=7\r\n"
        b"width = 3 2 \t\r\n"
        b"height=16 # pixels\r\n"
        b"channels=3\r\n"
        b"learning_rate=.001\r\n"
        b"[conv]\r\n"
        b"filters =12\r\n"
        b"size= 1\r\n"
        b"activation = linear\t \r\n"
        b"[yolo] # the only one\r\n"
        b"mask = 1,  0\r\n"
        b"anchors = 12, 18,  37, 49.5\r\n"
        b"num=2\r\n"
        b"classes=1\r\n"
        b"jitter=.3"
    )
    cfg = read_cfg(path)
    assert (cfg.width, cfg.height) == (32, 16)
    convolution, yolo = cfg.layers
    assert isinstance(convolution, ConvolutionalSpec) and isinstance(yolo, DetectionSpec)
    assert (convolution.section.name, convolution.section.number, convolution.section.line) == ("convolutional", 0, 9)
    assert [(option.key, option.value, option.line) for option in convolution.section.options] == [
        ("filters", "12", 10),
        ("size", "1", 11),
        ("activation", "linear", 12),
    ]
    assert (yolo.section.number, yolo.section.line, yolo.sources) == (1, 13, (0,))
    assert yolo.scale.anchors == ((37.0, 49.5), (12.0, 18.0))


def test_of_an_option_that_is_given_twice_the_first_counts(written: Written) -> None:
    twice = CONV.replace("filters=8\n", "filters=8\nfilters=4\ngroups=1\ngroups=5\n")
    cfg = written(NET + "width=64\n" + twice + TOP).read()
    assert cfg.width == 32 and cfg.layers[0].kernels == (8, 3, 3, 3)


def test_what_only_training_reads_is_passed_over(written: Written) -> None:
    training = "batch=64\nmomentum=0.949\nletter_box=1\nmosaic=1\nsteps=1,2\nscales=.1,.1\ntrack=1\n"
    yolo = YOLO + "jitter=.3\nignore_thresh = .7\ntruth_thresh=1\nrandom=1\nmax=200\niou_loss=ciou\nbeta_nms=0.6\n"
    cfg = written(NET + training + CONV + "stopbackward=1\nunheard_of=yes\n" + ENDING + yolo).read()
    assert [type(layer) for layer in cfg.layers] == [ConvolutionalSpec, ConvolutionalSpec, DetectionSpec]


def test_layers_are_named_by_number_and_counted_back(written: Written) -> None:
    cfg = written(
        NET + CONV + CONV + "[route]\nlayers=-1,0\n" + CONV + "[shortcut]\nfrom=-3,-4\nactivation=linear\n" + TOP
    ).read()
    route, shortcut = cfg.layers[2], cfg.layers[4]
    assert isinstance(route, RouteSpec) and isinstance(shortcut, ShortcutSpec)
    assert (route.sources, route.channels, route.shape.channels) == ((1, 0), (8, 8), 16)
    assert (shortcut.sources, shortcut.channels) == ((3, 1, 0), (8, 8, 8))


def test_options_that_change_nothing_may_be_there(written: Written) -> None:
    neutral = "antialiasing=0\nassisted_excitation=0.0\nbinary=0\nxnor=0\nflipped=0\n"
    written(NET + CONV + neutral + "[route]\nlayers=-1\nactivation=linear\nreverse=0\n" + TOP).read()


# What is refused


def _replaced(option: str, value: str) -> str:
    before = next(line for line in CONV.splitlines() if line.startswith(f"{option}="))
    return NET + CONV.replace(before, f"{option}={value}") + TOP


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no sections, expected a Darknet .cfg file, which begins with [net]"),
        ("# nothing\n\n", "holds no sections"),
        ("width=1\n[net]\n", "line 1: 'width=1' stands before any section, expected [net] first"),
        (CONV + NET, "begins with [convolutional], expected a Darknet .cfg file"),
        ("[net]\nwidth\n", "line 2: 'width' is neither a [section] nor an option=value"),
        ("[net\nwidth=1\n", "line 1: '[net' is neither a [section] nor an option=value"),
        ("[n\x1bet]\n", "line 1: '[n\\x1bet]' is neither"),
        ("MZ\x00\x90\x00", "line 1: 'MZ\\x00\\x90\\x00' is neither a [section] nor an option=value"),
        ("[net]\n" + "[route]\n" * 2048, "has 2049 sections, more than the 2048 that are read"),
        (NET, "has no layers"),
        (NET + NET + TOP, "line 5: layer 0 [net] is a section that is not known here"),
        (NET.replace("width=32\n", ""), "line 1: [net] has '0' as width, expected a whole number from 1 to 8192"),
        (NET.replace("width=32", "width=many"), "line 2: [net] has 'many' as width"),
        (NET.replace("width=32", "width=99999"), "line 2: [net] has '99999' as width"),
        (
            NET.replace("channels=3", "channels=1"),
            "line 4: [net] has '1' as channels, expected 3",
        ),
    ],
)
def test_a_file_that_is_no_network_is_refused(text: str, fault: str, written: Written) -> None:
    assert fault in _refused(written(text))


def test_files_that_are_missing_or_too_large_are_refused(written: Written, tmp_path: Path) -> None:
    for path, fault in [(tmp_path / "none.cfg", "does not exist"), (tmp_path, "cannot be read")]:
        with pytest.raises(EdgetlError, match=fault):
            read_cfg(path)
    assert "is larger than 1048576 bytes" in _refused(written(NET + "#" * (1 << 20)))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            _replaced("filters", "0"),
            "line 6: layer 0 [convolutional] has '0' as filters, expected a whole",
        ),
        (_replaced("filters", "-8"), "has '-8' as filters"),
        (_replaced("filters", "8.5"), "has '8.5' as filters"),
        (_replaced("filters", ""), "has '' as filters"),
        (_replaced("filters", "9" * 400), f"has '{'9' * 40}' as filters"),
        (_replaced("filters", "65537"), "has '65537' as filters"),
        (_replaced("filters", "٣"), "has '٣' as filters"),
        (_replaced("size", "65"), "has '65' as size"),
        (_replaced("stride", "0"), "has '0' as stride"),
        (_replaced("activation", "lekay"), "has 'lekay' as activation, expected one of linear, leaky"),
        (_replaced("activation", "lekay"), "(did you mean leaky?)"),
        (_replaced("activation", "hard_swish"), "line 10: layer 0 [convolutional] has 'hard_swish' as activation"),
        (NET + CONV + "groups=2\n" + TOP, "makes 8 filters of 3 channels, which 2 groups do not divide"),
    ],
)
def test_nonsensical_numbers_and_words_are_named_with_line_and_section(text: str, fault: str, written: Written) -> None:
    assert fault in _refused(written(text))


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ("[connected]\noutput=10\n", "layer 1 [connected] is a section that is not known here"),
        ("[maxpol]\nsize=2\n", "[maxpol] is a section that is not known here (did you mean maxpool?)"),
        ("[Gaussian_yolo]\n", "[Gaussian_yolo] is a section that is not known here"),
        ("[reorg3d]\nstride=2\n", "[reorg3d] is a section that is not known here"),
        (CONV + "antialiasing=1\n", "has '1' as antialiasing, which is not computed here"),
        (CONV + "assisted_excitation=4000\n", "has '4000' as assisted_excitation, which is not computed here"),
        (CONV + "share_index=-2\n", "line 17: layer 1 [convolutional] has '-2' as share_index, which is not computed"),
        (CONV + "flipped=1\n", "has '1' as flipped"),
        (CONV + "xnor=1\n", "has '1' as xnor"),
        (CONV + "dontload=1\n", "has '1' as dontload"),
        (
            CONV.replace("size=3", "size=4") + "dilation=2\n",
            "has dilation 2, size 4 and padding 2, expected pad=1 and",
        ),
        (CONV.replace("pad=1", "pad=0") + "dilation=2\n", "has dilation 2, size 3 and padding 0"),
        ("[maxpool]\nsize=2\ngroups=2\n", "[maxpool] has '2' as groups, which is not computed here"),
        ("[maxpool]\nsize=2\nstride=2\nmaxpool_depth=1\n", "has '1' as maxpool_depth"),
        ("[maxpool]\nsize=2\npadding=2\n", "has '2' as padding, expected a whole number from 0 to 1"),
        ("[local_avgpool]\nsize=2\nstride=2\n", "has an odd padding (1), which is not computed here"),
        ("[upsample]\nstride=2\nreverse=1\n", "has '1' as reverse"),
        ("[upsample]\nstride=2\nscale=nan\n", "has 'nan' in scale, expected numbers between commas"),
        ("[upsample]\nstride=2\nscale=1,2\n", "has 2 numbers in scale, expected one"),
        ("[reorg]\nstride=2\nreverse=1\n", "has '1' as reverse"),
        ("[reorg]\nstride=3\n", "with stride 3 reads 8 x 32 x 32, expected multiples of 9, 3 and 3"),
        ("[route]\n", "[route] has no layers, expected the layers that it reads"),
        ("[route]\nlayers=-1,\n", "has '' in layers, expected whole numbers between commas"),
        ("[route]\nlayers=1\n", "line 12: layer 1 [route] reads layer 1, expected one that stands before it"),
        ("[route]\nlayers=2\n", "reads layer 2, expected one that stands before it"),
        ("[route]\nlayers=-2\n", "reads layer -1, expected one that stands before it"),
        ("[route]\nlayers=-1\nactivation=leaky\n", "has 'leaky' as activation, which is not computed here"),
        ("[route]\nlayers=-1\ngroups=3\n", "reads 8 channels, which 3 groups do not divide"),
        ("[route]\nlayers=-1\ngroups=2\ngroup_id=2\n", "has '2' as group_id, expected a whole number from 0 to 1"),
        ("[maxpool]\nsize=2\nstride=2\n[route]\nlayers=-1,-2\n", "reads maps of 8 x 16 x 16 and of 8 x 32 x 32"),
        ("[shortcut]\nactivation=linear\n", "[shortcut] has no from, expected the layers that it reads"),
        ("[shortcut]\nfrom=0" + ",0" * 64 + "\n", "reads 65 layers, expected no more than 64"),
        ("[shortcut]\nfrom=7\n", "reads layer 7, expected one that stands before it"),
        ("[shortcut]\nfrom=-1\nweights_type=per_feature\n", "has 'per_feature' as weights_type, which is not computed"),
        ("[shortcut]\nfrom=-1\nalpha=0.5\n", "has '0.5' as alpha"),
        ("[maxpool]\nsize=2\nstride=2\n[shortcut]\nfrom=-2\n", "expected one height and width"),
        (
            "[scale_channels]\nfrom=0\n",
            "scales 8 x 32 x 32 by 8 x 32 x 32 values, expected one layer and 8 x 1 x 1",
        ),
        ("[avgpool]\n[sam]\nfrom=0\n", "scales 8 x 32 x 32 by 8 x 1 x 1 values, expected one layer and 8 x 32 x 32"),
        ("[sam]\nfrom=0\nactivation=mish\n", "has mish as activation, which Darknet does not compute here"),
        ("[softmax]\n", "[softmax] reads 8 x 32 x 32 values, expected one for each class"),
        ("[avgpool]\n[softmax]\ntree=9k.tree\n", "has '9k.tree' as tree, which is not computed here"),
        ("[avgpool]\n[softmax]\ngroups=2\n", "has '2' as groups"),
        ("[avgpool]\n[softmax]\n[dropout]\n", "[dropout] reads layer 2 [softmax], which is the end of a branch"),
        ("[upsample]\nstride=64\n[upsample]\nstride=64\n", "gives 8 x 131072 x 131072 values for an image, expected"),
        ("[avgpool]\n" + CONV.replace("pad=1", "pad=0"), "gives 8 x -1 x -1 values for an image, expected from 1 to"),
    ],
)
def test_what_is_not_computed_or_does_not_fit_is_refused(sections: str, fault: str, written: Written) -> None:
    assert fault in _refused(written(NET + CONV + sections + TOP))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (NET + YOLO, "layer 0 [yolo] does not follow a [convolutional] section"),
        (NET + ENDING + "[dropout]\n" + YOLO, "does not follow a [convolutional] section"),
        (
            NET + CONV + YOLO,
            "line 15: layer 1 [yolo] has 2 anchors and 1 classes, expected filters=12 in the",
        ),
        (NET + ENDING + YOLO.replace("num=2", "num=3"), "has 4 numbers as anchors, expected 6 above zero (num=3)"),
        (NET + ENDING + YOLO.replace("1,2,3,4", "1,2,3,-4"), "expected 4 above zero (num=2)"),
        (NET + ENDING + YOLO.replace("1,2,3,4", "1,2,3,x"), "has 'x' in anchors, expected numbers between commas"),
        (NET + ENDING + YOLO.replace("1,2,3,4", "1,2,3,1e999"), "has '1e999' in anchors"),
        (NET + ENDING + YOLO.replace("1,2,3,4", ""), "has 0 numbers as anchors"),
        (NET + ENDING + YOLO.replace("mask=0,1", "mask=1,2"), "has anchors 0 to 1, and a mask that names others"),
        (NET + ENDING + YOLO.replace("classes=1", "classes=0"), "has '0' as classes"),
        (NET + ENDING + YOLO + "scale_x_y=0\n", "has scale_x_y=0.0, expected a number above zero"),
        (NET + ENDING + YOLO + CONV, "layer 2 [convolutional] reads layer 1 [yolo], which is the end of a branch"),
        (
            NET + ENDING + YOLO + "[route]\nlayers=1\n",
            "layer 2 [route] reads layer 1 [yolo], which is the end",
        ),
        (
            NET + ENDING + YOLO.replace("yolo", "region"),
            "has no softmax=1, without which Darknets do not agree",
        ),
        (NET + ENDING + YOLO.replace("yolo", "region") + "softmax=1\ntree=9k.tree\n", "has '9k.tree' as tree"),
        (NET + ENDING + YOLO.replace("yolo", "region") + "softmax=1\ncoords=5\n", "has '5' as coords"),
        (NET + CONV, "layer 0 [convolutional] ends a network that neither detects nor classifies"),
        (NET + CONV + "[avgpool]\n[softmax]\n[route]\nlayers=0\n" + TOP, "neither detects nor classifies"),
        (NET + CONV.replace("filters=8", "filters=65536") * 2 + TOP, "above 536870912 weights, the most that are read"),
    ],
)
def test_endings_that_cannot_be_read_are_refused(text: str, fault: str, written: Written) -> None:
    assert fault in _refused(written(text))


def _refused(files: Any) -> str:
    with pytest.raises(EdgetlError) as error:
        files.read()
    message = str(error.value)
    assert "\n" not in message and message.startswith(str(files.cfg))
    return message
