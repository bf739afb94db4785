from __future__ import annotations

import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.data.images import BrokenImageError
from edgetl.data.video import is_video, open_video, video_writer
from edgetl.errors import EdgetlError

av = pytest.importorskip("av", reason="the extra detect is not installed")


def written(path: Path, size: tuple[int, int] = (64, 48), times: tuple[float, ...] = (0.0, 0.1, 0.2)) -> Path:
    """Frames that are brighter from one to the next."""
    with video_writer(path, Fraction(10)) as add:
        for number, seconds in enumerate(times):
            add(Image.new("RGB", size, (20 * number, 20 * number, 20 * number)), seconds)
    return path


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (65, 31)])
def test_frames_come_as_they_were_written(size: tuple[int, int], tmp_path: Path) -> None:
    with open_video(written(tmp_path / "a.mp4", size)) as video:
        frames = list(video.frames)
    assert video.fps == 10
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert [frame.seconds for frame in frames] == pytest.approx([0.0, 0.1, 0.2])
    for number, frame in enumerate(frames):
        assert frame.image.size == size and frame.image.mode == "RGB"
        assert np.abs(np.asarray(frame.image).astype(int) - 20 * number).max() <= 4


def test_uneven_times_are_kept_and_equal_ones_are_moved_apart(tmp_path: Path) -> None:
    with open_video(written(tmp_path / "a.mp4", times=(0.0, 0.04, 0.5, 0.5))) as video:
        seconds = [frame.seconds for frame in video.frames]
    assert seconds == pytest.approx([0.0, 0.04, 0.5, 0.5], abs=1e-3)
    assert seconds[3] > seconds[2]


def test_a_video_that_was_taken_sideways_is_upright(tmp_path: Path) -> None:
    """Phones store frames as the sensor lies, and an angle to turn them by."""
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write such a video")
    path = tmp_path / "sideways.mp4"
    upright = Image.new("RGB", (48, 64), "black")
    upright.paste("white", (0, 0, 48, 16))
    with av.open(str(path), "w") as container:
        track = container.add_stream("mpeg4", rate=10)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        track.set_display_rotation(90)
        container.mux(track.encode(av.VideoFrame.from_image(upright.transpose(Image.Transpose.ROTATE_270))))
        container.mux(track.encode(None))
    with open_video(path) as video:
        (frame,) = video.frames
    assert frame.image.size == (48, 64)
    assert np.abs(np.asarray(frame.image).astype(int) - np.asarray(upright)).mean() < 10


def test_a_long_video_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    frame_bytes = 320 * 240 * 3
    path = written(tmp_path / "long.mp4", (320, 240), tuple(number / 10 for number in range(120)))
    tracemalloc.start()
    with open_video(path) as video:
        count = sum(1 for _ in video.frames)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 120 and peak < 20 * frame_bytes


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"no video at all" * 100, "no video that FFmpeg reads"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "no video that FFmpeg reads"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "no video that FFmpeg reads"),
    ],
)
def test_what_is_no_video_gives_a_reason_and_opens_nothing_else(content: bytes, reason: str, tmp_path: Path) -> None:
    written(tmp_path / "other.mp4")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(BrokenImageError, match=reason), open_video(tmp_path / "a.mp4") as video:
        list(video.frames)


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(BrokenImageError, match="not a regular file"), open_video(tmp_path / "a.mp4"):
        pass


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(track.encode(frame))
        container.mux(track.encode(None))
    with pytest.raises(BrokenImageError, match="no video track"), open_video(path):
        pass


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), video_writer(tmp_path / "a.mp4", Fraction(10)) as add:
        add(Image.new("RGB", (64, 48)), 0.0)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(EdgetlError, match="cannot write"), video_writer(tmp_path / "file" / "a.mp4", Fraction(10)):
        pass


def test_a_video_is_told_by_its_name() -> None:
    assert is_video(Path("a/B.MP4")) and is_video(Path("c.mkv"))
    assert not is_video(Path("a.gif")) and not is_video(Path("mp4"))
