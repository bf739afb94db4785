"""The comparison of two graphs, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from edgetl.artifacts.comparison import GraphComparison
from edgetl.report.wording import printable

_SHOWN = 10


def comparison_lines(found: GraphComparison) -> Iterator[str]:
    """What the outputs come to, then the layers and the images that differ most."""
    yield f"{printable(found.b)} against {printable(found.a)}, {found.images} images"
    for output in found.outputs:
        parts = [f"output {printable(output.output)}:"]
        if output.snr_db is not None:
            parts.append(f"{output.snr_db:.1f} dB")
        if output.max_abs_difference is not None:
            parts.append(f"at most {output.max_abs_difference:.3g} apart")
        if output.top1_agreement is not None:
            parts.append(f"the same class for {output.top1_agreement:.1%} of images")
        yield " ".join(parts) if len(parts) > 1 else f"{parts[0]} its size depends on values"
    if found.layers:
        yield f"layers with the most noise, of {len(found.layers)}, and what each adds to the one before it:"
        drops = _drops(found)
        for position in sorted(range(len(found.layers)), key=lambda number: found.layers[number].snr_db)[:_SHOWN]:
            layer = found.layers[position]
            yield f"  {layer.snr_db:7.1f} dB ({drops[position]:+.1f})  {layer.op} {printable(layer.layer)}"
    yield "images with the most noise:"
    for image in found.worst_images:
        yield f"  {image.snr_db:7.1f} dB  {printable(image.image)}"


def _drops(found: GraphComparison) -> list[float]:
    noise = [layer.snr_db for layer in found.layers]
    return [0.0, *(now - before for before, now in pairwise(noise))]
