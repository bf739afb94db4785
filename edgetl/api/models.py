"""ONNX files and engines from Python: what `prepare`, `build-engine`, `inspect`, `predict` and `fuse` do."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgetl.api.progress import Progress, reporter_of
from edgetl.arrays import Float32Array
from edgetl.artifacts.bundle import Preprocessing
from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.engine_manifest import EngineManifest, EngineTensor, manifest_path, read_manifest
from edgetl.artifacts.files import read_json, whole_file
from edgetl.artifacts.fusion_report import Fusion
from edgetl.artifacts.predictions import Prediction
from edgetl.artifacts.prepared import PreparedRecord, is_prepared, record_path
from edgetl.config import InputContract, QdqFormat, load_contract
from edgetl.data.images import BrokenImageError, Pixels, read
from edgetl.data.stream import to_input
from edgetl.data.views import plain
from edgetl.engine import runtime as runtimes
from edgetl.engine.layer_precisions import graph_tensors
from edgetl.engine.options import BuildOptions, RunOptions
from edgetl.errors import EdgetlError
from edgetl.graph.cost import Cost, CostModel
from edgetl.graph.metadata import labels_of, record_preprocessing, recorded_preprocessing
from edgetl.graph.model import load_model, save_model
from edgetl.stages.build_file import EngineRequest, build_file
from edgetl.stages.fuse_files import FuseRequest, fuse_files
from edgetl.stages.input_contract import input_preprocessing
from edgetl.stages.predict_files import PredictRequest
from edgetl.stages.predict_files import predict as predict_files
from edgetl.stages.prepare_file import PrepareRequest, prepare_file

AnyPath = str | Path


class _Folder:
    """A temporary folder that goes with the last object that refers to it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edgetl-"))
        # Not tempfile.TemporaryDirectory, which warns where nobody closes it.
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Model:
    """An ONNX file. `load` makes one; nothing changes the file.

    What methods make without ``output`` lies in a temporary folder, which goes when nothing refers to it any more;
    `save` keeps it.
    """

    def __init__(self, path: Path, folder: _Folder | None = None) -> None:
        self.path = path
        self._folder = folder
        self._graph = load_model(path)
        self._inputs, self._outputs = graph_tensors(self._graph)

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """Name, type and shape of each input; a dynamic dimension has its name in place of a size."""
        return self._inputs

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """Name, type and shape of each output."""
        return self._outputs

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of each output, in the order of its classes; empty where the file names none."""
        return labels_of(self._graph)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes the input; None where the file does not say it: give ``preprocessing`` to `load`."""
        return recorded_preprocessing(self._graph)

    def cost(self) -> Cost:
        """FLOPs, parameters and bytes for one image.

        Raises:
            EdgetlError: the graph does not tell the sizes of its tensors.
        """
        return CostModel(self._graph).cost()

    def read(self, images: Sequence[AnyPath]) -> Float32Array:
        """Image files as the input, N x 3 x height x width.

        Raises:
            EdgetlError: a file cannot be read, or the model does not say how images become its input.
        """
        preprocessing = input_preprocessing(self._graph, name=str(self.path))
        if not images:
            raise EdgetlError("no image was given; give at least one path")
        pixels = [_pixels(Path(image), preprocessing) for image in images]
        return to_input(np.stack(pixels), preprocessing)

    def quantize(
        self,
        calibration_images: AnyPath,
        *,
        target: QdqFormat = "tensorrt",
        recipe: str = "default",
        max_accuracy_drop: float | None = None,
        eval_data: AnyPath | None = None,
        output: AnyPath | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """The model in INT8, calibrated on images like the real ones.

        Args:
            calibration_images: a folder, or a text file that lists paths.
            target: the QDQ format; each runtime is fast on its own only.
            recipe: a recipe's name in ``calibration/``, or its path.
            max_accuracy_drop: layers leave INT8 until it loses no more accuracy than this on ``eval_data``; 0.01 is
                1 %.
            eval_data: labelled images, folders by label; for a detector COCO's .json, YOLO's .yaml, or VOC.
            output: the file to write.
            progress: a function for messages, such as ``print``.

        Raises:
            EdgetlError: the graph or the images cannot be used, or only one of ``max_accuracy_drop`` and ``eval_data``
                is given.
            NotMetError: INT8 cannot be made to lose no more than ``max_accuracy_drop``.
        """
        if (max_accuracy_drop is None) != (eval_data is None):
            raise EdgetlError("max_accuracy_drop and eval_data go together; give both or neither")
        request = PrepareRequest(
            "int8",
            target,
            Path(calibration_images),
            recipe,
            max_accuracy_drop,
            None if eval_data is None else Path(eval_data),
        )
        return self._prepared(request, output, progress)

    def to_fp16(
        self,
        calibration_images: AnyPath | None = None,
        *,
        output: AnyPath | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """The model in FP16; layers that overflow on the images (or on random pixels) stay in FP32.

        Raises:
            EdgetlError: the graph or the images cannot be used.
        """
        images = None if calibration_images is None else Path(calibration_images)
        return self._prepared(PrepareRequest("fp16", calibration_images=images), output, progress)

    def _prepared(self, request: PrepareRequest, output: AnyPath | None, progress: Progress | None) -> Model:
        path, folder = _place(output, f"{self.path.stem}.{request.precision}.onnx")
        prepare_file(self.path, path, request, reporter_of(progress))
        return Model(path, folder)

    @property
    def prepared(self) -> PreparedRecord | None:
        """How the file was prepared, with its signal-to-noise ratios by layer; None for a file that was not."""
        return read_json(record_path(self.path), PreparedRecord) if is_prepared(self.path) else None

    def build(
        self,
        runtime: str = "onnxruntime",
        *,
        options: BuildOptions | None = None,
        threads: int = 0,
        output: AnyPath | None = None,
        progress: Progress | None = None,
    ) -> LoadedEngine:
        """An engine of the model, loaded.

        Args:
            runtime: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt or tensorrt-rtx.
            options: how it is built.
            threads: those of ONNX Runtime on the CPU; 0 means one per core.
            output: the file to write.
            progress: a function for messages, such as ``print``.

        Raises:
            EdgetlError: the runtime does not run here, or does not take the graph or the options.
        """
        suffix = runtimes.get_runtime(runtime).SUFFIX
        path, folder = _place(output, f"{self.path.stem}.{runtime}{suffix}")
        preparation = PrepareRequest("fp32", runtimes.get_runtime(runtime).QDQ_FORMAT)
        request = EngineRequest(self.path, path, runtime, options or BuildOptions(), preparation)
        return LoadedEngine(build_file(request, reporter_of(progress)), RunOptions(threads=threads), folder=folder)

    def save(self, path: AnyPath) -> Model:
        """Write a copy of the file, and of the record of how it was prepared; return the model in that file.

        Raises:
            EdgetlError: it cannot be written.
        """
        path, prepared = Path(path), self.prepared
        save_model(self._graph, path)
        if prepared is not None:
            _copy(record_path(self.path), record_path(path))
        return Model(path)

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r})"


class LoadedEngine:
    """An engine that is loaded, ready to run. `load_engine` and `Model.build` make one."""

    def __init__(
        self,
        path: Path,
        run: RunOptions | None = None,
        trust: bool = False,
        folder: _Folder | None = None,
    ) -> None:
        self.path = path
        self._folder = folder
        self._engine = runtimes.load_engine(path, trust=trust, run=run)
        self.manifest: EngineManifest = read_manifest(path, trust)

    @property
    def runtime(self) -> str:
        """The name of the runtime that built it."""
        return self.manifest.runtime

    def __call__(self, *inputs: Float32Array) -> dict[str, Float32Array]:
        """Run it; the outputs by name.

        Args:
            inputs: an array for each input, the batch first. `Model.read` makes one of image files.

        Raises:
            EdgetlError: the inputs do not fit.
        """
        expected = len(self._engine.shapes)
        if len(inputs) != expected:
            raise EdgetlError(f"{self.path.name} takes {expected} inputs, found {len(inputs)}")
        return self._engine.infer(*(np.ascontiguousarray(array, np.float32) for array in inputs))

    def save(self, path: AnyPath) -> LoadedEngine:
        """Write a copy of the engine and its manifest; return the engine in that file.

        Raises:
            EdgetlError: it cannot be written.
        """
        path = Path(path)
        _copy(self.path, path)
        _copy(manifest_path(self.path), manifest_path(path))
        return LoadedEngine(path)

    def __repr__(self) -> str:
        return f"LoadedEngine({str(self.path)!r}, runtime={self.runtime!r})"


class FusedModel(Model):
    """A model that was fused from others. ``fusion`` says what they share and how the result was verified."""

    def __init__(self, path: Path, fusion: Fusion, folder: _Folder | None = None) -> None:
        super().__init__(path, folder)
        self.fusion = fusion


def load(path: AnyPath, preprocessing: str | InputContract | None = None) -> Model:
    """The model in an ONNX file.

    Args:
        path: the file.
        preprocessing: how an image becomes its input, where the file does not say it: ``imagenet``, ``unit``,
            ``symmetric``, ``raw255``, ``caffe``, a YAML file's path, or an `InputContract`.

    Raises:
        EdgetlError: the file cannot be read, or says itself that it takes images in another way.
    """
    model = Model(Path(path))
    if preprocessing is None:
        return model
    contract = load_contract(preprocessing) if isinstance(preprocessing, str) else preprocessing
    agreed = input_preprocessing(model._graph, contract, str(path))
    if model.preprocessing is not None:
        return model
    # In a copy: the user's file stays as it is.
    graph = onnx.ModelProto()
    graph.CopyFrom(model._graph)
    record_preprocessing(graph, agreed)
    place, folder = _place(None, model.path.name)
    save_model(graph, place)
    return Model(place, folder)


def load_engine(path: AnyPath, *, run: RunOptions | None = None, trust: bool = False) -> LoadedEngine:
    """The engine in a file that edgetl built.

    Args:
        path: the file; its manifest lies beside it.
        run: how it is run.
        trust: load a file that its manifest does not describe. An engine can run code.

    Raises:
        EdgetlError: the engine is missing, damaged, or was built for something else.
    """
    return LoadedEngine(Path(path), run, trust)


def fuse(
    models: Mapping[str, Model | AnyPath],
    output: AnyPath | None = None,
    *,
    images: AnyPath | None = None,
    recalibrate: bool = False,
    progress: Progress | None = None,
) -> FusedModel:
    """One model that computes what several do, with the layers that they share only once.

    Args:
        models: by the names that outputs get as a prefix, ``NAME/OUTPUT``.
        output: the file to write.
        images: a folder of images to verify on, besides random ones.
        recalibrate: of INT8 models whose scales of a shared tensor differ, unite the ranges.
        progress: a function for messages, such as ``print``.

    Raises:
        EdgetlError: fewer than two models, they share nothing, or the result would compute something else.
    """
    if len(models) < 2:
        raise EdgetlError(f"fuse was given {len(models)} models; give at least two")
    path, folder = _place(output, "fused.onnx")
    graphs = {name: path_of(model) for name, model in models.items()}
    request = FuseRequest(graphs, path, None if images is None else Path(images), recalibrate)
    return FusedModel(path, fuse_files(request, reporter_of(progress)), folder)


def predict(
    model: Model | LoadedEngine | AnyPath,
    sources: Sequence[AnyPath],
    *,
    output: AnyPath | None = None,
    score_threshold: float | None = None,
    top: int = 5,
) -> list[Prediction | BrokenFile]:
    """The labels or boxes of images, one for each image and each frame of a video.

    A file that cannot be read is among the results as a `BrokenFile`.

    Args:
        model: an ONNX file with labels, or an engine of ONNX Runtime.
        sources: images, folders of images, and videos.
        output: a folder for pictures with labels and boxes drawn in.
        score_threshold: boxes that score less are left out; None for 0.25, or the model's own if that is higher.
        top: the number of labels given for each head of a classifier.

    Raises:
        EdgetlError: the model cannot be used, a source is missing, or none can be read.
    """
    drawn = None if output is None else Path(output)
    return list(predict_files(PredictRequest(path_of(model), tuple(map(Path, sources)), drawn, score_threshold, top)))


def _pixels(image: Path, preprocessing: Preprocessing) -> Pixels:
    try:
        return plain(read(image), preprocessing)
    except (BrokenImageError, OSError) as error:
        raise EdgetlError(f"{image} cannot be read as an image: {error}") from error


def path_of(model: Model | LoadedEngine | AnyPath) -> Path:
    """The file of a model or an engine."""
    return Path(model) if isinstance(model, str | Path) else model.path


def _place(output: AnyPath | None, name: str) -> tuple[Path, _Folder | None]:
    """The file to write, and the temporary folder that it lies in where the user gave none."""
    if output is not None:
        return Path(output), None
    folder = _Folder()
    return folder.path / name, folder


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
