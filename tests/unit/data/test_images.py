from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from edgetl.artifacts.bundle import Preprocessing
from edgetl.data.geometry import image_placement
from edgetl.data.images import MAX_PIXELS, BrokenImageError, check, decode, fit, upright_size
from edgetl.data.views import plain

MATERIAL = Path(__file__).parents[3] / ".." / "shared" / "material"

ENCODINGS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive-jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "lzw-tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {"lossless": True}),
    "ppm": ("PPM", {}),
}

EXIF_FORMS = frozenset({"JPEG", "PNG", "WEBP", "TIFF"})


def picture(width: int = 96, height: int = 72, seed: int = 0) -> Image.Image:
    """Blocks of random colour under a gradient: edges, flat areas and something to compress."""
    blocks = np.random.default_rng(seed).integers(0, 200, (9, 12, 3)).astype(np.uint8)
    image = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
    ramp = np.linspace(0, 55, width).astype(np.uint8)[None, :, None]
    return Image.fromarray(np.asarray(image) + ramp)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(content: bytes, image_size: int | None = None) -> npt.NDArray[np.uint8]:
    image = decode(content, image_size)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG file written by hand: its header may promise any size, its further chunks may hold anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    further = b"".join(chunk(kind.encode(), data) for kind, data in chunks.items())
    body = chunk(b"IHDR", header) + further + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def huge(side: int) -> bytes:
    return png(side, side, depth=8, colour=2, rows=bytes(99))


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_format_gives_the_pixels_that_pillow_gives(name: str) -> None:
    form, options = ENCODINGS[name]
    content = encoded(picture(), form, **options)
    check(content)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(pixels(content), expected)


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_file_cut_short_anywhere_is_broken_or_whole_but_never_filled_up(name: str) -> None:
    form, options = ENCODINGS[name]
    content = encoded(picture(), form, **options)
    expected = pixels(content)
    # All cuts near both ends, where the decoders differ, and some in between.
    cuts = {*range(60), *range(60, len(content), 97), *range(len(content) - 40, len(content))}
    for cut in sorted(cuts):
        with suppress(BrokenImageError):
            np.testing.assert_array_equal(pixels(content[:cut]), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_missing_end_is_seen_without_decoding(form: str) -> None:
    content = encoded(picture(), form)
    with pytest.raises(BrokenImageError, match="truncated"):
        check(content[:-12])


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    content = encoded(picture(), "JPEG")
    np.testing.assert_array_equal(pixels(content + bytes(1000)), pixels(content))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not an image at all, but text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image, or cut short"),
        (b"P6 2 2 255 ", "truncated"),
    ],
)
def test_what_is_no_image_is_broken_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        decode(content)


@settings(max_examples=150)
@given(st.sampled_from(sorted(ENCODINGS)), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_raise_nothing_but_broken_image(name: str, changes: list[tuple[int, int]]) -> None:
    form, options = ENCODINGS[name]
    content = bytearray(encoded(picture(), form, **options))
    for position, value in changes:
        content[position % len(content)] = value
    try:
        assert decode(bytes(content)).mode == "RGB"
    except BrokenImageError as error:
        assert error.reason


@pytest.mark.parametrize("side", [10_000, 13_000, 20_000])
def test_a_huge_header_draws_no_warning_and_is_refused_above_the_limit(side: int) -> None:
    content = huge(side)
    if side * side > MAX_PIXELS:
        with pytest.raises(BrokenImageError, match=str(side * side)):
            check(content)
        with pytest.raises(BrokenImageError, match=str(side * side)):
            decode(content)
    else:
        check(content)


def test_the_size_limit_holds_where_another_package_lifted_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(BrokenImageError, match="20000 x 20000 pixels"):
        decode(huge(20_000))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(picture(), form, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    np.testing.assert_array_equal(pixels(content), np.asarray(expected))


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_header_tells_the_size_of_the_upright_image(name: str, orientation: int | None) -> None:
    form, options = ENCODINGS[name]
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    content = encoded(picture(97, 70), form, **options, **({"exif": exif} if form in EXIF_FORMS else {}))
    assert upright_size(content) == decode(content).size


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        ("eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    ],
)
def test_a_png_is_turned_by_what_is_written_in_any_of_its_chunks(kind: str, data: bytes) -> None:
    content = png(3, 1, depth=8, colour=0, rows=b"\0" + bytes(3), **{kind: data})
    assert decode(content).size == (1, 3)
    assert upright_size(content) == (1, 3)


def test_the_size_of_a_png_is_told_without_decoding_it() -> None:
    content = encoded(picture(97, 70))
    damaged = content[:60] + bytes(200) + content[260:]
    with pytest.raises(BrokenImageError):
        decode(damaged)
    assert upright_size(damaged) == (97, 70)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0junk", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"]
)
def test_damaged_metadata_says_nothing_against_the_pixels(exif: bytes) -> None:
    np.testing.assert_array_equal(pixels(encoded(picture(), "JPEG", exif=exif)), pixels(encoded(picture(), "JPEG")))


def test_transparency_is_laid_on_white() -> None:
    rgba = picture().convert("RGBA")
    rgba.putalpha(Image.fromarray(np.repeat(np.array([[0, 128, 255]], np.uint8), 32, axis=1)).resize(rgba.size, 0))
    colour, alpha = np.asarray(rgba)[..., :3].astype(float), np.asarray(rgba)[..., 3:] / 255
    expected = colour * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(encoded(rgba)).astype(float) - expected).max() <= 1

    grey = rgba.convert("LA")
    level = np.asarray(grey)[..., :1].astype(float)
    expected = np.repeat(level * alpha + 255 * (1 - alpha), 3, axis=2)
    assert np.abs(pixels(encoded(grey)).astype(float) - expected).max() <= 1


@pytest.mark.parametrize(("form", "transparency"), [("PNG", 1), ("PNG", b"\xff\x00"), ("GIF", 1)])
def test_transparent_palette_entries_become_white(form: str, transparency: int | bytes) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 0, 1, 1, 2, 2])
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]], np.uint8)
    expected = colours[[[0, 1, 2, 0], [1, 1, 2, 2]]]
    np.testing.assert_array_equal(pixels(encoded(image, form, transparency=transparency)), expected)


def test_palette_and_one_bit_images_keep_their_colours() -> None:
    palette = picture().quantize(16)
    np.testing.assert_array_equal(pixels(encoded(palette)), np.asarray(palette.convert("RGB")))
    one_bit = picture().convert("1")
    assert set(np.unique(pixels(encoded(one_bit)))) == {0, 255}


def test_sixteen_bit_grey_is_scaled_and_never_clipped() -> None:
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    expected = np.repeat(np.rint(values / 257).astype(np.uint8)[..., None], 3, axis=2)
    little = Image.fromarray(values)
    big = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    wide = Image.fromarray(values.astype(np.int32))
    for content in (encoded(little), encoded(little, "TIFF"), encoded(big, "TIFF"), encoded(wide, "TIFF")):
        np.testing.assert_array_equal(pixels(content), expected)


def test_the_transparent_value_of_sixteen_bit_grey_becomes_white() -> None:
    rows = b"\0" + np.array([0, 300, 65535], ">u2").tobytes()
    content = png(3, 1, depth=16, colour=0, rows=rows, tRNS=struct.pack(">H", 300))
    assert pixels(content)[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 65536]], np.int32), "from 0 to 65536"),
        (np.array([[-1, 9]], np.int32), "from -1 to 9"),
        (np.array([[0.0, 1.0]], np.float32), "floating-point"),
    ],
)
def test_pixels_without_a_known_range_are_broken_with_a_reason(values: npt.NDArray[np.generic], reason: str) -> None:
    with pytest.raises(BrokenImageError, match=reason):
        decode(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize(("mode", "form"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")])
def test_other_colour_spaces_come_close_to_the_colours_they_were_made_from(mode: str, form: str) -> None:
    flat = Image.new("RGB", (32, 32), (180, 90, 40))
    content = encoded(flat.convert(mode), form)
    if Image.open(io.BytesIO(content)).mode != mode:
        pytest.skip(f"this Pillow cannot read {mode} from {form}")
    assert np.abs(pixels(content).astype(int) - (180, 90, 40)).max() <= 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_an_animation_gives_its_first_frame(form: str) -> None:
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ((250, 0, 0), (0, 250, 0)))
    content = encoded(first, form, save_all=True, append_images=[second])
    assert np.abs(pixels(content).astype(int) - (250, 0, 0)).max() <= 6


@pytest.mark.parametrize("size", [(1200, 800), (801, 1203), (513, 512), (100, 90)])
def test_a_large_jpeg_is_decoded_no_smaller_than_twice_the_image_size(size: tuple[int, int]) -> None:
    content = encoded(picture(*size), "JPEG")
    short = min(decode(content, image_size=64).size)
    assert short >= min(128, *size)
    assert short < 256 or min(size) < 256
    assert decode(content).size == size


def test_decoding_at_reduced_size_hardly_changes_what_the_backbone_sees() -> None:
    preprocessing = Preprocessing.square(64)
    content = encoded(picture(1200, 800), "JPEG", quality=95)
    full, reduced = fit(decode(content), preprocessing), fit(decode(content, 64), preprocessing)
    assert np.abs(full.astype(float) - reduced).mean() < 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size", [(64, 64), (65, 64), (64, 67), (640, 480), (333, 500), (31, 17), (20, 20), (3, 900), (1, 1)]
)
def test_fit_equals_torchvision(size: tuple[int, int], interpolation: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms", reason="the reference is torchvision")
    image = picture(*size)
    reference = transforms.Compose(
        [transforms.Resize(64, transforms.InterpolationMode(interpolation)), transforms.CenterCrop(64)]
    )
    found = fit(image, Preprocessing.square(64, interpolation=interpolation))
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(reference(image)))


def test_a_sliver_is_refused_before_its_resize_takes_all_memory() -> None:
    with pytest.raises(BrokenImageError, match="1 x 60000 pixels: too narrow"):
        fit(Image.new("RGB", (1, 60_000)), Preprocessing.square(224))


def boxed(width: int, height: int, fit: str) -> Preprocessing:
    return Preprocessing.model_validate({"width": width, "height": height, "fit": fit})


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (96, 96), (31, 17), (640, 90)])
@pytest.mark.parametrize("frame", [(96, 96), (128, 96), (96, 160)])
def test_a_letterboxed_image_stands_between_bars_of_grey_127(size: tuple[int, int], frame: tuple[int, int]) -> None:
    found = fit(Image.new("RGB", size, (200, 30, 90)), boxed(*frame, "letterbox"))
    assert found.shape == (frame[1], frame[0], 3) and found.dtype == np.uint8
    place = image_placement(size, boxed(*frame, "letterbox"))
    (left, top), (width, height) = place.corner, place.size
    expected = np.full((frame[1], frame[0], 3), 127, np.uint8)
    expected[top : top + height, left : left + width] = (200, 30, 90)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("fitted", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(640, 480), (501, 777), (1000, 300), (300, 260)])
def test_fitted_pixels_are_near_those_of_opencv(size: tuple[int, int], fitted: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="the reference is OpenCV")
    image, preprocessing = picture(*size), boxed(224, 160, fitted)
    place = image_placement(size, preprocessing)
    expected = np.full((160, 224, 3), 127, np.uint8)
    (left, top), (width, height) = place.corner, place.size
    area = cv2.resize(np.asarray(image), place.size, interpolation=cv2.INTER_AREA)
    expected[top : top + height, left : left + width] = area
    difference = np.abs(fit(image, preprocessing).astype(float) - expected)
    # Pillow weighs neighbours with a triangle, OpenCV with a box: they differ at edges alone.
    assert difference.mean() < 3 and np.median(difference) <= 1


@pytest.mark.parametrize("fitted", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(1200, 800), (801, 1203), (97, 61)])
def test_a_bright_rectangle_is_rendered_where_its_box_lands(size: tuple[int, int], fitted: str) -> None:
    preprocessing = boxed(128, 96, fitted)
    box = np.array([0.2, 0.3, 0.7, 0.9]) * np.tile(size, 2) // 1
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), tuple(int(edge) for edge in box))
    place = image_placement(size, preprocessing)
    (left, top, right, bottom), (x, y) = place.to_input(box)[0], place.corner
    found = plain(encoded(image, "JPEG", quality=100, subsampling=0), preprocessing)[..., 0].astype(float) / 255
    lit = found[y : y + place.size[1], x : x + place.size[0]]
    rows, columns = lit.sum(axis=1), lit.sum(axis=0)
    assert rows.max() == pytest.approx(right - left, abs=0.25)
    assert columns.max() == pytest.approx(bottom - top, abs=0.25)
    assert np.average(np.arange(len(columns)) + x + 0.5, weights=columns) == pytest.approx((left + right) / 2, abs=0.4)
    assert np.average(np.arange(len(rows)) + y + 0.5, weights=rows) == pytest.approx((top + bottom) / 2, abs=0.4)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("fitted", ["letterbox", "stretch"])
def test_a_large_jpeg_decoded_smaller_lands_where_the_whole_would(orientation: int, fitted: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(picture(1207, 803), "JPEG", quality=95, exif=exif)
    preprocessing = boxed(96, 64, fitted)
    whole = decode(content)
    place = image_placement(whole.size, preprocessing)
    smaller = decode(content, place.detail)
    assert smaller.width < whole.width / 2 and upright_size(content) == whole.size
    found, expected = plain(content, preprocessing), fit(whole, preprocessing)
    np.testing.assert_array_equal((found == 127).all(axis=2)[:, 0], (expected == 127).all(axis=2)[:, 0])
    assert np.abs(found.astype(float) - expected).mean() < 2


def test_threads_decode_odd_files_at_once_without_a_warning() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    contents = [encoded(picture(seed=seed), "JPEG", exif=exif) for seed in range(4)]
    caught: list[BaseException] = []

    def work(content: bytes) -> None:
        try:
            for _ in range(50):
                decode(content)
        except BaseException as error:
            caught.append(error)

    before = list(warnings.filters)
    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not caught
    assert [rule for rule in warnings.filters if rule in before] == before


@pytest.mark.material
def test_real_images_of_every_data_set_decode() -> None:
    folder = MATERIAL / "datasets"
    if not folder.is_dir():
        pytest.skip("the data sets do not lie beside the project")
    files = [
        path
        for name in ("cifar10", "gtsrb-subset", "bccd", "coco128")
        for path in sorted((folder / name).rglob("*"))
        if path.suffix in {".jpg", ".jpeg", ".ppm", ".png"}
    ]
    for path in files[:: max(1, len(files) // 60)]:
        assert fit(decode(path.read_bytes(), 64), Preprocessing.square(64)).shape == (64, 64, 3)
