from __future__ import annotations

from pathlib import Path

from PIL import ExifTags, Image

from edgetl.artifacts.data_index import BrokenFile
from edgetl.artifacts.files import sha256_file
from edgetl.data.examine import FileFacts, examine, size_and_time


def test_files_are_told_by_digest_and_upright_size_in_their_order(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "b.jpg", exif=exif)
    (tmp_path / "c.png").write_text("no image")
    found = examine(tmp_path, ["c.png", "b.jpg", "gone.png", "a.png"])
    assert found[1] == FileFacts(sha256_file(tmp_path / "b.jpg"), (20, 30))
    assert found[3] == FileFacts(sha256_file(tmp_path / "a.png"), (30, 20))
    assert [file.path for file in found if isinstance(file, BrokenFile)] == ["c.png", "gone.png"]


def test_a_file_that_is_gone_has_a_size_and_time_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("four")
    assert size_and_time(tmp_path / "a") == (4, (tmp_path / "a").stat().st_mtime_ns)
    assert size_and_time(tmp_path / "gone") == (-1, -1)
