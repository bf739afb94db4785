"""What a section of a .cfg file stands on."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetl.train.darknet.sections import DetectionSpec, LayerShape, LayerSpec, SoftmaxSpec
from edgetl.train.darknet.syntax import Section

_MOST_SOURCES = 64


@dataclass
class PreviousLayers:
    """The layers that a section can read: those before it, and the images."""

    width: int
    height: int
    layers: list[LayerSpec] = field(default_factory=list)

    def previous(self, section: Section) -> LayerShape:
        """The shape of what every section reads that names no layers: the layer before it, or the images.

        Raises:
            EdgetlError: that layer is the end of a branch.
        """
        return self.shape(section, section.number - 1) if self.layers else LayerShape(3, self.height, self.width)

    def shape(self, section: Section, number: int, key: str = "") -> LayerShape:
        """That of a layer's output.

        Raises:
            EdgetlError: it is no earlier layer, or the end of a branch.
        """
        if not 0 <= number < len(self.layers):
            raise section.fault(f"reads layer {number}, expected one that stands before it", key)
        read = self.layers[number]
        if isinstance(read, DetectionSpec | SoftmaxSpec) or read.section.name == "cost":
            raise section.fault(f"reads layer {number} [{read.section.name}], which is the end of a branch", key)
        return read.shape

    def named(self, section: Section, key: str) -> tuple[tuple[int, ...], list[LayerShape]]:
        """The layers that an option names, and their shapes; Darknet counts negative numbers back from the section.

        Raises:
            EdgetlError: it names none, or one that cannot be read.
        """
        numbers = tuple(number + section.number if number < 0 else number for number in section.wholes(key))
        if not numbers:
            raise section.fault(f"has no {key}, expected the layers that it reads")
        if len(numbers) > _MOST_SOURCES:
            raise section.fault(f"reads {len(numbers)} layers, expected no more than {_MOST_SOURCES}", key)
        return numbers, [self.shape(section, number, key) for number in numbers]
