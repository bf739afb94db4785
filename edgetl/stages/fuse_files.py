"""Fuses plain ONNX files that share layers into one, and verifies the result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgetl.artifacts.fusion_report import Fusion, Sharing, Verification
from edgetl.config import InputContract
from edgetl.errors import EdgetlError
from edgetl.graph.fusion.divergence import divergences
from edgetl.graph.fusion.fused_graph import Fused, fuse
from edgetl.graph.fusion.recalibrate import recalibrate, scale_conflicts
from edgetl.graph.fusion.sharing import sharing
from edgetl.graph.fusion.verify import Feed, random_inputs, tolerance, verify
from edgetl.graph.metadata import record_preprocessing
from edgetl.graph.model import image_input, load_model, save_model, stored_bytes, whole_model
from edgetl.report.wording import printable
from edgetl.stages.input_contract import drawn_inputs, input_preprocessing
from edgetl.stages.stage import ProgressReporter

_RANDOM_IMAGES = 8
_REAL_IMAGES = 64


@dataclass(frozen=True)
class FuseRequest:
    """The files to fuse, by their names, and how to verify the result.

    ``contract`` says how images become the graphs' input, where their metadata do not.
    """

    graphs: Mapping[str, Path]
    output: Path
    images: Path | None = None
    recalibrate: bool = False
    contract: InputContract | None = None


def named_models(models: Sequence[Path], names: Sequence[str] | None = None) -> dict[str, Path]:
    """The models by these names, or by those of their files.

    Raises:
        EdgetlError: there are more or fewer names than models, two are equal, or one cannot be a part of an output's.
    """
    chosen = [model.stem for model in models] if names is None else list(names)
    if len(chosen) != len(models):
        raise EdgetlError(f"--names has {len(chosen)} names for {len(models)} models; give each model one")
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise EdgetlError(f"two models are called {twice!r}; tell them apart with --names NAME,NAME")
    # A slash stands between a model's name and an output's.
    unfit = next((name for name in chosen if not name or "/" in name), None)
    if unfit is not None:
        raise EdgetlError(f"a model cannot be called {unfit!r}; give --names without / and none empty")
    return dict(zip(chosen, models, strict=True))


def fuse_files(request: FuseRequest, reporter: ProgressReporter) -> Fusion:
    """Fuse files, write the result if it computes what they do, and report on it.

    Raises:
        EdgetlError: a file cannot be read or fused, a model has nothing in common with the others, or the result
            computes something else or cannot be written.
    """
    if request.output.resolve() in {path.resolve() for path in request.graphs.values()}:
        raise EdgetlError(f"{request.output} is one of the models to fuse; give another file to write with -o")
    originals = {name: load_model(path) for name, path in request.graphs.items()}
    conflicts = scale_conflicts(originals)
    models = recalibrate(originals) if request.recalibrate else originals
    fused, parted = fuse(models), divergences(models)
    found = sharing(fused)
    _refuse_unshared(models, found)
    if request.contract is not None:
        for name, path in request.graphs.items():
            preprocessing = input_preprocessing(originals[name], request.contract, str(path))
        record_preprocessing(fused.model, preprocessing)
    batch = _fixed_batch(fused.model) or _RANDOM_IMAGES
    random = [random_inputs(fused.model, batch, seed) for seed in range(-(-_RANDOM_IMAGES // batch))]
    real = list(_real_batches(fused.model, request.images))
    reporter.message("verifying that nothing changed")
    verified, moved = _written(request, models, fused, [*random, *real])
    return Fusion(
        sharing=found,
        bytes={name: stored_bytes(path) for name, path in request.graphs.items()},
        fused_bytes=stored_bytes(request.output),
        divergences=parted,
        conflicts=conflicts,
        verified=verified,
        random_images=_count(random),
        real_images=_count(real),
        recalibration_difference=moved,
    )


def _written(
    request: FuseRequest, models: Mapping[str, onnx.ModelProto], fused: Fused, feeds: Sequence[Feed]
) -> tuple[Verification, float | None]:
    """Write the fused graph; return how it was verified, and how far recalibration moved the outputs.

    Raises:
        EdgetlError: it computes something else than ``models``; nothing is written then.
    """
    # The output gets its name when the block ends well: what is not verified is not left behind.
    with tempfile.TemporaryDirectory() as scratch, whole_model(fused.model, request.output) as written:
        sources = dict(request.graphs)
        if request.recalibrate:
            # Verified against the models in their new scales; how far these moved the outputs is told apart.
            sources = {name: Path(scratch) / f"{number}.onnx" for number, name in enumerate(models)}
            for name, model in models.items():
                save_model(model, sources[name])
        verified = verify(written, sources, fused.tensors, feeds, tolerance(models.values()))
        _refuse_difference(verified, fused)
        if not request.recalibrate:
            return verified, None
        return verified, verify(written, request.graphs, fused.tensors, feeds, 0.0).difference


def _refuse_unshared(models: Mapping[str, onnx.ModelProto], found: Sharing) -> None:
    lonely = next((name for name, amount in found.shared.items() if not amount.layers), None)
    if lonely is not None:
        other = next(name for name in models if name != lonely)
        parted = divergences({other: models[other], lonely: models[lonely]})[0]
        raise EdgetlError(
            f"{lonely} has no layer in common with the others, so nothing would be gained; against {other}, "
            f"at {printable(parted.layer or 'its input')}: {printable(parted.reason)}"
        )


def _refuse_difference(verified: Verification, fused: Fused) -> None:
    if verified.wrong is not None:
        raise EdgetlError(
            f"output {verified.wrong} would be up to {verified.difference:.3g} away from what its model computes, more "
            "than rounding explains; nothing was written: report this with the models"
        )
    if len(verified.random) == len(fused.model.graph.output):
        raise EdgetlError("every output depends on chance, so nothing can be verified; export the models for inference")


def _real_batches(model: onnx.ModelProto, folder: Path | None) -> Iterator[Feed]:
    if folder is None:
        return
    preprocessing, fixed = input_preprocessing(model, name="one of the models"), _fixed_batch(model)
    for _, images in drawn_inputs(folder, preprocessing, _REAL_IMAGES, fixed or _RANDOM_IMAGES):
        # numpy's resize repeats images where a batch must be full.
        yield {image_input(model): np.resize(images, (fixed, *images.shape[1:])) if fixed else images}


def _fixed_batch(model: onnx.ModelProto) -> int:
    """The batch size of the first input; 0 where it is dynamic."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return int(dims[0].dim_value) if dims else 0


def _count(batches: list[Feed]) -> int:
    return sum(len(next(iter(batch.values()))) for batch in batches)
