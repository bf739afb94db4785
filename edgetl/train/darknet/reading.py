"""Readers of a .cfg file's sections: each makes the layer that one kind of section describes.

Options mean what they mean in Darknet's sources (``src/parser.c`` of AlexeyAB's Darknet, and its layers), and have the
same defaults. An option that Darknet does not know, or that matters only in training, is passed over, as Darknet passes
over it. One that would change the result and is not computed here is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from edgetl.artifacts.detector_bundle import YoloScale
from edgetl.errors import did_you_mean
from edgetl.train.darknet.sections import (
    AveragePoolSpec,
    ConvolutionalSpec,
    DetectionSpec,
    GlobalAveragePoolSpec,
    IdentitySpec,
    LayerShape,
    LayerSpec,
    MaxPoolSpec,
    PreviousLayers,
    ProductSpec,
    ReorgSpec,
    RouteSpec,
    ShortcutSpec,
    SoftmaxSpec,
    UpsampleSpec,
)
from edgetl.train.darknet.syntax import Section

ACTIVATIONS = ("linear", "leaky", "relu", "relu6", "mish", "swish", "logistic", "tanh", "elu")
"""As Darknet names them. Of a name that it does not know (hard_swish is one) it makes relu; here that is an error."""

# Far above any published network. They keep a damaged or hostile file from asking for more memory than there is.
_MOST_CHANNELS = 1 << 16
_LARGEST_KERNEL = 64
_MOST_VALUES = 1 << 28
_MOST_CLASSES = 1 << 15
_MOST_ANCHORS = 1 << 8

# Options that change the result where a section has them, each with the value at which they do not.
_CHANGES: dict[str, str | None] = {
    "activation": "linear",
    "alpha": "1",
    "antialiasing": "0",
    "assisted_excitation": "0",
    "background": "0",
    "beta": None,
    "bin_output": "0",
    "binary": "0",
    "cbn": "0",
    "coordconv": "0",
    "coords": "4",
    "dilation": "1",
    "dontload": "0",
    "dontloadscales": "0",
    "extra": "0",
    "flatten": "0",
    "flipped": "0",
    "groups": "1",
    "maxpool_depth": "0",
    "maxpool_zero_nonmax": "0",
    "reverse": "0",
    "rotate": "0",
    "scale_wh": "0",
    "share_index": None,
    "spatial": "0",
    "stretch": "0",
    "stretch_sway": "0",
    "sway": "0",
    "temperature": "1",
    "tree": None,
    "weights_type": "none",
    "xnor": "0",
}

_Reader = Callable[[Section, PreviousLayers], LayerSpec]
_READERS: dict[str, tuple[_Reader, frozenset[str]]] = {}


def _reads(*names: str, computed: str = "") -> Callable[[_Reader], _Reader]:
    """Register a reader of sections, and which of `_CHANGES` its layer computes (names between blanks)."""

    def register(reader: _Reader) -> _Reader:
        _READERS.update(dict.fromkeys(names, (reader, frozenset(computed.split()))))
        return reader

    return register


def read_layer(section: Section, below: PreviousLayers) -> LayerSpec:
    """The layer that a section describes.

    Raises:
        EdgetlError: the section is unknown, asks for what is not computed here, holds a nonsensical number, or does
            not fit to the layers that it reads.
    """
    if section.name not in _READERS:
        raise section.fault(f"is a section that is not known here{did_you_mean(section.name, _READERS)}")
    reader, computed = _READERS[section.name]
    others = _CHANGES.keys() - computed
    for key in {option.key: None for option in section.options if option.key in others}:
        value, neutral = section.word(key, ""), _CHANGES[key]
        try:
            unchanged = neutral is not None and float(value) == float(neutral)
        except ValueError:
            unchanged = value == neutral
        if not unchanged:
            raise section.fault(f"has {value[:40]!r} as {key}, which is not computed here", key)
    shape = (layer := reader(section, below)).shape
    fits = shape.channels <= _MOST_CHANNELS and shape.values <= _MOST_VALUES
    if not fits or min(shape.channels, shape.height, shape.width) < 1:
        raise section.fault(
            f"gives {shape} values for an image, expected from 1 to {_MOST_VALUES} in up to {_MOST_CHANNELS} channels"
        )
    return layer


def _activation(section: Section, default: str = "linear") -> str:
    name = section.word("activation", default)
    if name not in ACTIVATIONS:
        known = f"{', '.join(ACTIVATIONS)}{did_you_mean(name[:40], ACTIVATIONS)}"
        raise section.fault(f"has {name[:40]!r} as activation, expected one of {known}", "activation")
    return name


def _strides(section: Section) -> tuple[int, int]:
    both = section.whole("stride", 1, 1, _LARGEST_KERNEL)
    vertical, horizontal = (section.whole(key, both, 1, _LARGEST_KERNEL) for key in ("stride_y", "stride_x"))
    return vertical, horizontal


@_reads("convolutional", computed="activation dilation groups")
def _convolutional(section: Section, below: PreviousLayers) -> ConvolutionalSpec:
    source = below.previous(section)
    filters, groups = (section.whole(key, 1, 1, _MOST_CHANNELS) for key in ("filters", "groups"))
    size = section.whole("size", 1, 1, _LARGEST_KERNEL)
    if source.channels % groups or filters % groups:
        raise section.fault(
            f"makes {filters} filters of {source.channels} channels, which {groups} groups do not divide", "groups"
        )
    padding = section.whole("padding", 0, 0, _LARGEST_KERNEL)
    # In Darknet pad is a switch that overrules padding, whatever its number.
    if section.whole("pad", 0, 0, _LARGEST_KERNEL):
        padding = size // 2
    dilation = section.whole("dilation", 1, 1, _LARGEST_KERNEL) if size > 1 else 1
    if dilation > 1 and 2 * padding != size - 1:
        # Darknet pads by padding * dilation, but takes the size of the output to be that of an undilated kernel.
        raise section.fault(
            f"has dilation {dilation}, size {size} and padding {padding}, expected pad=1 and an odd size", "dilation"
        )
    strides = _strides(section)
    return ConvolutionalSpec(
        section=section,
        sources=(section.number - 1,),
        shape=_windows(source, filters, size, strides, 2 * padding),
        channels=source.channels,
        size=size,
        strides=strides,
        padding=padding * dilation,
        dilation=dilation,
        groups=groups,
        normalised=bool(section.whole("batch_normalize", 0, 0, 1)),
        activation=_activation(section, "logistic"),
    )


def _windows(source: LayerShape, channels: int, size: int, strides: tuple[int, int], padding: int) -> LayerShape:
    """The shape of what windows of a size make of a layer that is padded by so much, both sides together."""
    sides = zip((source.height, source.width), strides, strict=True)
    return LayerShape(channels, *((side + padding - size) // stride + 1 for side, stride in sides))


def _pool(section: Section, below: PreviousLayers) -> tuple[LayerShape, int, tuple[int, int], int]:
    """Shape, size, strides and padding (``make_maxpool_layer``)."""
    source, strides = below.previous(section), _strides(section)
    size = section.whole("size", section.whole("stride", 1, 1, _LARGEST_KERNEL), 1, _LARGEST_KERNEL)
    # With less padding than the size every window holds at least one value.
    padding = section.whole("padding", size - 1, 0, size - 1)
    return _windows(source, source.channels, size, strides, padding), size, strides, padding


@_reads("maxpool")
def _maxpool(section: Section, below: PreviousLayers) -> MaxPoolSpec:
    shape, size, strides, padding = _pool(section, below)
    return MaxPoolSpec(section, (section.number - 1,), shape, size, strides, padding)


@_reads("local_avgpool")
def _local_avgpool(section: Section, below: PreviousLayers) -> AveragePoolSpec:
    shape, size, strides, padding = _pool(section, below)
    if padding % 2:
        # PyTorch pads both sides alike, and repeating the edge, as for a maximum, would change an average.
        raise section.fault(f"has an odd padding ({padding}), which is not computed here", "padding")
    return AveragePoolSpec(section, (section.number - 1,), shape, size, strides, padding)


@_reads("avgpool")
def _avgpool(section: Section, below: PreviousLayers) -> GlobalAveragePoolSpec:
    return GlobalAveragePoolSpec(section, (section.number - 1,), LayerShape(below.previous(section).channels, 1, 1))


@_reads("route", computed="groups")
def _route(section: Section, below: PreviousLayers) -> RouteSpec:
    sources, shapes = below.named(section, "layers")
    _refuse_other_sides(section, shapes[0], shapes, "layers")
    channels = tuple(shape.channels for shape in shapes)
    groups = section.whole("groups", 1, 1, _MOST_CHANNELS)
    group = section.whole("group_id", 0, 0, groups - 1)
    odd = next((width for width in channels if width % groups), None)
    if odd is not None:
        raise section.fault(f"reads {odd} channels, which {groups} groups do not divide", "groups")
    shape = LayerShape(sum(channels) // groups, shapes[0].height, shapes[0].width)
    return RouteSpec(section, sources, shape, channels, groups, group)


@_reads("shortcut", computed="activation")
def _shortcut(section: Section, below: PreviousLayers) -> ShortcutSpec:
    shape = below.previous(section)
    sources, shapes = below.named(section, "from")
    _refuse_other_sides(section, shape, shapes, "from")
    channels = tuple(one.channels for one in (shape, *shapes))
    return ShortcutSpec(section, (section.number - 1, *sources), shape, channels, _activation(section))


def _refuse_other_sides(section: Section, shape: LayerShape, others: list[LayerShape], key: str) -> None:
    for other in others:
        if (other.height, other.width) != (shape.height, shape.width):
            raise section.fault(f"reads maps of {shape} and of {other}, expected one height and width", key)


@_reads("sam", computed="activation")
@_reads("scale_channels", computed="activation scale_wh")
def _product(section: Section, below: PreviousLayers) -> ProductSpec:
    """The layer before it is the scale: of each value, of each channel, or (scale_wh) of each place."""
    scale = below.previous(section)
    (source, *_), (shape, *more) = below.named(section, "from")
    expected = shape
    if section.name == "scale_channels":
        places = section.whole("scale_wh", 0, 0, 1)
        expected = LayerShape(1, shape.height, shape.width) if places else LayerShape(shape.channels, 1, 1)
    if more or scale != expected:
        raise section.fault(f"scales {shape} by {scale} values, expected one layer and {expected} values", "from")
    activation = _activation(section)
    if activation in {"mish", "swish"}:
        raise section.fault(f"has {activation} as activation, which Darknet does not compute here", "activation")
    return ProductSpec(section, (source, section.number - 1), shape, activation)


@_reads("upsample")
def _upsample(section: Section, below: PreviousLayers) -> UpsampleSpec:
    source, stride = below.previous(section), section.whole("stride", 2, 1, _LARGEST_KERNEL)
    shape = LayerShape(source.channels, source.height * stride, source.width * stride)
    return UpsampleSpec(section, (section.number - 1,), shape, stride, section.real("scale", 1.0))


@_reads("reorg")
def _reorg(section: Section, below: PreviousLayers) -> ReorgSpec:
    source, stride = below.previous(section), section.whole("stride", 1, 1, _LARGEST_KERNEL)
    if source.channels % stride**2 or source.height % stride or source.width % stride:
        raise section.fault(
            f"with stride {stride} reads {source}, expected multiples of {stride**2}, {stride} and {stride}", "stride"
        )
    shape = LayerShape(source.channels * stride**2, source.height // stride, source.width // stride)
    return ReorgSpec(section, (section.number - 1,), shape, stride)


@_reads("softmax")
def _softmax(section: Section, below: PreviousLayers) -> SoftmaxSpec:
    source = below.previous(section)
    if (source.height, source.width) != (1, 1):
        raise section.fault(f"reads {source} values, expected one for each class")
    return SoftmaxSpec(section, (section.number - 1,), source)


@_reads("dropout", "cost")
def _unchanged(section: Section, below: PreviousLayers) -> IdentitySpec:
    # [cost] follows [softmax], which nothing else may read.
    ends = section.name == "cost" and below.layers
    shape = below.layers[-1].shape if ends else below.previous(section)
    return IdentitySpec(section, (section.number - 1,), shape)


@_reads("yolo")
def _yolo(section: Section, below: PreviousLayers) -> DetectionSpec:
    anchors = _anchors(section)
    mask = section.wholes("mask") or tuple(range(len(anchors)))
    if not all(0 <= number < len(anchors) for number in mask):
        raise section.fault(f"has anchors 0 to {len(anchors) - 1}, and a mask that names others", "mask")
    scale_xy = section.real("scale_x_y", 1.0)
    if scale_xy <= 0:
        raise section.fault(f"has scale_x_y={scale_xy}, expected a number above zero", "scale_x_y")
    activated = bool(section.whole("new_coords", 0, 0, 1))
    masked = tuple(anchors[number] for number in mask)
    return _detection(section, below, YoloScale(anchors=masked, scale_xy=scale_xy, activated=activated))


@_reads("region")
def _region(section: Section, below: PreviousLayers) -> DetectionSpec:
    if not section.whole("softmax", 0, 0, 1):
        # pjreddie's Darknet makes class scores logistic then, AlexeyAB's leaves them as they are.
        raise section.fault("has no softmax=1, without which Darknets do not agree on its scores", "softmax")
    # The anchors of [region] are in cells, those of [yolo] in pixels.
    cells = below.previous(section)
    across, down = below.width / cells.width, below.height / cells.height
    anchors = tuple((width * across, height * down) for width, height in _anchors(section))
    return _detection(section, below, YoloScale(anchors=anchors, softmax=True))


def _anchors(section: Section) -> tuple[tuple[float, float], ...]:
    number = section.whole("num", 1, 1, _MOST_ANCHORS)
    sides = section.reals("anchors")
    if len(sides) != 2 * number or min(sides) <= 0:
        raise section.fault(
            f"has {len(sides)} numbers as anchors, expected {2 * number} above zero (num={number})", "anchors"
        )
    return tuple(zip(sides[::2], sides[1::2], strict=True))


def _detection(section: Section, below: PreviousLayers, scale: YoloScale) -> DetectionSpec:
    shape, number = below.previous(section), section.number - 1
    classes = section.whole("classes", 20, 1, _MOST_CLASSES)
    if number < 0 or not isinstance(below.layers[number], ConvolutionalSpec):
        raise section.fault("does not follow a [convolutional] section, expected one that gives its boxes")
    anchors = len(scale.anchors)
    if shape.channels != anchors * (5 + classes):
        raise section.fault(
            f"has {anchors} anchors and {classes} classes, expected filters={anchors * (5 + classes)} in the layer "
            f"before it, found {shape.channels}",
            "classes",
        )
    return DetectionSpec(section, (number,), shape, classes, scale)
