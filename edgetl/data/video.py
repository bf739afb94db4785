"""Videos read and written frame by frame, with one frame in memory at a time. PyAV is imported where it is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from edgetl.artifacts.files import whole_file
from edgetl.data.images import MAX_PIXELS, BrokenImageError
from edgetl.errors import EdgetlError, MissingExtraError

SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv"})

# A playlist that is called a video would make FFmpeg open what it names, be it a private file or an address.
_READ = {"format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg", "protocol_whitelist": "file"}

_UPRIGHT = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
_TICKS = 90_000  # in a second: the clock of MPEG, which 24, 25 and 30 frames divide
_DEFAULT_FPS = Fraction(25)


@dataclass(frozen=True)
class VideoFrame:
    """An upright RGB image; the first one of a video has number 0."""

    number: int
    seconds: float
    image: Image.Image


@dataclass(frozen=True)
class Video:
    """An open video. ``fps``: frames in a second; 25 where the file does not tell."""

    fps: Fraction
    frames: Iterator[VideoFrame]


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name alone."""
    return path.suffix.lower() in SUFFIXES


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """An open video of the first video track of a file, to be read once from its beginning.

    Raises:
        MissingExtraError: PyAV is not installed.
        BrokenImageError: the file is no video, here or where ``frames`` comes to what is damaged.
        OSError: the file is gone or cannot be read.
    """
    av = _pyav()
    if path.exists() and not path.is_file():  # to open a pipe would never end
        raise BrokenImageError("not a regular file")
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise BrokenImageError("empty file")
        try:
            container = av.open(stream, container_options=_READ)
        except av.FFmpegError as error:
            raise BrokenImageError(f"no video that FFmpeg reads: {_reason(error)}") from error
        with container:
            if not container.streams.video:
                raise BrokenImageError("there is no video track in it")
            track = container.streams.video[0]
            track.thread_type = "AUTO"
            yield Video(track.average_rate or _DEFAULT_FPS, _frames(av, container, track))


def _frames(av: Any, container: Any, track: Any) -> Iterator[VideoFrame]:
    rate = track.average_rate or _DEFAULT_FPS
    number = 0
    try:
        for frame in container.decode(track):
            if frame.width * frame.height > MAX_PIXELS:
                raise BrokenImageError(f"frame {number} has {frame.width} x {frame.height} pixels, too many")
            seconds = frame.time if frame.time is not None else float(number / rate)
            image: Image.Image = frame.to_image()
            turn = _UPRIGHT.get(round(frame.rotation) % 360)
            yield VideoFrame(number, seconds, image if turn is None else image.transpose(turn))
            number += 1
    except av.FFmpegError as error:
        raise BrokenImageError(f"damaged behind frame {number - 1}: {_reason(error)}") from error
    if number == 0:
        raise BrokenImageError("there is no frame in it")


@contextmanager
def video_writer(path: Path, rate: Fraction) -> Iterator[Callable[[Image.Image, float], None]]:
    """A function that adds an image at a time in seconds to a new MP4 file, which is there when the block ends well.

    Times ascend, and all images have the size of the first one. Sound is not kept.

    Raises:
        MissingExtraError: PyAV is not installed.
        EdgetlError: the file cannot be written, or PyAV has no encoder for it.
    """
    av = _pyav()
    codec = next((name for name in ("libx264", "mpeg4") if name in av.codecs_available), None)
    if codec is None:
        raise EdgetlError("this PyAV can write neither H.264 nor MPEG-4; install it with: pip install 'edgetl[detect]'")
    try:
        with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as container:
            track = container.add_stream(codec, rate=rate)
            last = -1

            def add(image: Image.Image, seconds: float) -> None:
                nonlocal last
                if last < 0:
                    track.width, track.height = image.size
                    track.codec_context.time_base = Fraction(1, _TICKS)
                    # yuv420p, which every player reads, has one colour for 2 x 2 pixels: an odd side does not divide.
                    track.pix_fmt = "yuv444p" if any(side % 2 for side in image.size) else "yuv420p"
                frame = av.VideoFrame.from_image(image)
                # Encoders refuse two frames of one time, which damaged videos have.
                last = max(last + 1, round(seconds * _TICKS))
                frame.pts, frame.time_base = last, Fraction(1, _TICKS)
                container.mux(track.encode(frame))

            yield add
            container.mux(track.encode(None))  # the encoder still holds frames
    except av.FFmpegError as error:
        raise EdgetlError(f"cannot write {path}: {_reason(error)}") from error


def _pyav() -> Any:
    try:
        import av  # absent on most machines
    except ImportError as error:
        raise MissingExtraError("a video", "detect", error) from error
    return av


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
