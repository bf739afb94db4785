"""Runs images, folders and videos through a model: predictions, and pictures with them drawn in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import whole_file
from edgetl.artifacts.predictions import Prediction
from edgetl.data.images import BrokenImageError, decode, fit, read, upright_size
from edgetl.data.paths import IMAGE_SUFFIXES, files_below, utf8
from edgetl.data.pictures import annotated
from edgetl.data.video import is_video, open_video, video_writer
from edgetl.data.views import plain
from edgetl.errors import EdgetlError
from edgetl.stages.predictor import Predictor, load_predictor

_AS_THEY_ARE = frozenset({".jpg", ".jpeg", ".png"})
_QUALITY = 92


@dataclass(frozen=True)
class PredictRequest:
    """A model and the images to predict.

    ``sources``: images, videos, and folders of images. ``output``: a folder for pictures, or None. ``score_threshold``:
    boxes that score less are left out; None for 0.25, or the model's own threshold if that is higher. ``top``: the
    number of labels given for each head.
    """

    model: Path
    sources: tuple[Path, ...]
    output: Path | None = None
    score_threshold: float | None = None
    top: int = 5


def predict(request: PredictRequest) -> Iterator[Prediction | BrokenFile]:
    """The predictions for each image, and for each frame of each video, as they come.

    A file that cannot be read, or a video that is damaged, is reported among the results, and no picture of it is
    written; the others are done.

    Raises:
        EdgetlError: the model cannot be used (see `load_predictor`), a source is missing or a folder without images,
            pictures would overwrite a source or one another or cannot be written; or no source at all could be read.
    """
    files = list(_files(request))  # all of them: what cannot be written is refused before the first is done
    predictor, least = load_predictor(request.model, request.score_threshold)
    predict_one = partial(predictor.prediction, score_threshold=least, top=request.top)
    predicted, first = 0, None
    for file, target in files:
        try:
            for prediction in (_video if is_video(file) else _image)(predictor, predict_one, file, target):
                yield prediction
                predicted += 1
        except (BrokenImageError, OSError) as error:  # noqa: PERF203 - the others are done all the same
            broken = BrokenFile(path=utf8(file), reason=str(getattr(error, "strerror", None) or error))
            first = first or broken
            yield broken
    if first is not None and not predicted:
        raise EdgetlError(
            f"none of {len(files)} files can be read; the first: {first.path} ({first.reason}); give images or videos"
        )


def _image(
    predictor: Predictor, predict_one: Callable[..., Prediction], file: Path, target: Path | None
) -> Iterator[Prediction]:
    content = read(file)
    prediction = predict_one(file, predictor.run(plain(content, predictor.preprocessing)), upright_size(content))
    if target is not None:
        picture = annotated(decode(content), prediction)
        with whole_file(target) as partly:
            picture.save(partly, format="PNG" if target.suffix.lower() == ".png" else "JPEG", quality=_QUALITY)
    yield prediction


def _video(
    predictor: Predictor, predict_one: Callable[..., Prediction], file: Path, target: Path | None
) -> Iterator[Prediction]:
    with open_video(file) as video, ExitStack() as writing:
        add = writing.enter_context(video_writer(target, video.fps)) if target is not None else None
        for frame in video.frames:
            outputs = predictor.run(fit(frame.image, predictor.preprocessing))
            prediction = predict_one(file, outputs, frame.image.size)
            if add is not None:
                add(annotated(frame.image, prediction), frame.seconds)
            yield prediction.replaced(frame=frame.number, seconds=round(frame.seconds, 3))


def _files(request: PredictRequest) -> Iterator[tuple[Path, Path | None]]:
    """Every file and the path of its picture, if there is one; raises EdgetlError where a picture cannot be written."""
    named = [found for source in request.sources for found in _named(source)]
    for file, _ in named:
        utf8(file)
    sources = {file.resolve(): file for file, _ in named}
    taken: dict[Path, Path] = {}
    for file, name in named:
        if request.output is None:
            yield file, None
            continue
        # The file's own name where a picture can have it, else with the picture's suffix after it.
        kept = {".mp4"} if is_video(name) else _AS_THEY_ARE
        suffix = "" if name.suffix.lower() in kept else ".mp4" if is_video(name) else ".png"
        target = request.output / name.with_name(name.name + suffix)
        place = target.resolve()
        if place in sources:
            raise EdgetlError(f"the picture of {file} would overwrite {sources[place]}; give another folder as -o")
        if taken.setdefault(place, file).resolve() != file.resolve():
            raise EdgetlError(f"the pictures of {taken[place]} and {file} would both be {target}; predict them apart")
        yield file, target


def _named(source: Path) -> Sequence[tuple[Path, Path]]:
    """The files of a source, each with its name below the folder."""
    if not source.exists():
        raise EdgetlError(f"{source} does not exist; give images, folders of images, or videos")
    if not source.is_dir():
        return [(source, Path(source.name))]
    found = [file for file in files_below(source) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise EdgetlError(
            f"{source} holds no images; expected files such as .jpg and .png (videos are named one by one)"
        )
    return [(file, file.relative_to(source)) for file in found]
