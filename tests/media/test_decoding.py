"""Pictures as they come: in formats nobody asked for, too large, cut short, of odd brightness."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from kpipe.errors import ImageError
from kpipe.media.decoding import needed_memory
from kpipe.media.images import read_image, read_photo
from tests.conftest import PORTRAIT, Run

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n"


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A photograph without a single pixel of middle gray."""
    with Image.open(PORTRAIT) as picture:
        pixels = np.array(picture.convert("RGB").resize((240, 320)))
    pixels[..., 0] |= 1
    pixels[..., 1] &= 0xFE
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


# Formats


def test_postscript_named_jpg_is_refused_at_once_and_starts_no_program(
    kpipe: Run, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 600\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "loop.jpg").write_bytes(POSTSCRIPT)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = kpipe("annotate", "loop.jpg", env={**os.environ, "PATH": path})
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "kpipe: loop.jpg: PostScript is not read; save the picture as JPEG or PNG"
    ]
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("format_", ["EPS", "PDF", "IM", "MSP", "SPIDER", "XBM", "DDS"])
def test_formats_that_nobody_asked_for_are_not_read(photo: Image.Image, format_: str) -> None:
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(format_, "RGB")
    with pytest.raises(ImageError, match=r"is not read|not a picture in a format that is read"):
        read_image(encoded(photo.convert(mode), format_))


@pytest.mark.parametrize(
    "format_",
    ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM", "ICO",
     "SGI", "QOI", "PCX", "TGA"],
)  # fmt: skip
def test_formats_that_are_read(photo: Image.Image, format_: str) -> None:
    side = photo.resize((128, 128))
    read = read_image(encoded(side, format_))
    assert np.abs(read.astype(float) - np.asarray(side)).mean() < 12


# Memory


def test_a_picture_that_needs_too_much_memory_is_refused_by_its_header(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(photo, "PNG"))
    monkeypatch.setenv("KPIPE_MAX_MEMORY_GB", "0.0003")
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "photo.png")
    assert str(caught.value) == (
        f"{tmp_path}/photo.png: 240 x 320 pixels need about 0.0 GB of memory, the limit is 0.0 GB; "
        "KPIPE_MAX_MEMORY_GB raises it, and --memory that of a batch job"
    )
    monkeypatch.setenv("KPIPE_MAX_MEMORY_GB", "1")
    assert read_image(tmp_path / "photo.png").shape == (320, 240, 3)
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("KPIPE_MAX_MEMORY_GB", wrong)
        with pytest.raises(ImageError, match=f"KPIPE_MAX_MEMORY_GB={wrong}: not a positive number"):
            read_image(tmp_path / "photo.png")


def test_a_file_that_is_too_large_is_not_even_read(kpipe: Run, tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(50 << 30)
    done = kpipe("annotate", "sparse.jpg", "--no-picture")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "kpipe: sparse.jpg: 50.0 GB, the limit is 4.0 GB; KPIPE_MAX_MEMORY_GB raises it"
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this limit")
def test_the_limit_of_a_worker_counts(photo: Image.Image, tmp_path: Path) -> None:
    Image.new("RGB", (12_000, 12_000)).save(tmp_path / "large.png")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))\n"
        "from kpipe.media.images import read_image\n"
        "try: read_image('large.png')\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout.decode() == (
        "large.png: 12000 x 12000 pixels need about 0.9 GB of memory, the limit is 0.5 GB; "
        "KPIPE_MAX_MEMORY_GB raises it, and --memory that of a batch job\n"
    )


PEAK = """
import resource, sys
from kpipe.media.images import read_image
read_image("small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read_image("large")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in other units")
@pytest.mark.parametrize(
    ("mode", "format_"),
    [
        ("L", "PNG"),
        ("RGB", "JPEG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("CMYK", "JPEG"),
        ("I;16", "TIFF"),
        ("F", "TIFF"),
        ("RGB", "WEBP"),
    ],
)
def test_reading_takes_no_more_memory_than_the_header_lets_expect(
    tmp_path: Path, mode: str, format_: str
) -> None:
    gray = Image.linear_gradient("L").resize((5000, 4000))
    image = Image.fromarray(np.asarray(gray) * np.uint16(257)) if mode == "I;16" else None
    image = image or gray.convert("RGB" if mode in ("CMYK", "RGBA") else mode).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "large", format_, exif=exif)
    image.crop((0, 0, 64, 64)).save(tmp_path / "small", format_)
    with Image.open(tmp_path / "large") as opened:
        expected = needed_memory(opened, (tmp_path / "large").stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, check=True
    )
    # What does not grow with the picture: a strip in a few forms.
    assert int(done.stdout) < expected + (24 << 20)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in other units")
def test_deep_color_that_is_brightened_takes_no_more_memory_either(tmp_path: Path) -> None:
    import cv2

    deep = np.full((4000, 5000, 3), 3000, np.uint16)
    assert cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert cv2.imwrite(str(tmp_path / "small.png"), deep[:64, :64])
    (tmp_path / "deep.png").rename(tmp_path / "large")
    (tmp_path / "small.png").rename(tmp_path / "small")
    with Image.open(tmp_path / "large") as opened:
        expected = needed_memory(opened, (tmp_path / "large").stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, check=True
    )
    assert int(done.stdout) < expected + (24 << 20)


def test_a_cut_webp_that_is_too_large_is_not_decoded_either(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = cut(photo, "WEBP", 0.8, quality=90)
    monkeypatch.setenv("KPIPE_MAX_MEMORY_GB", "0.0005")
    with pytest.raises(ImageError, match="KPIPE_MAX_MEMORY_GB raises it"):
        read_photo(content)


def test_the_largest_picture_of_any_format_fits_the_default() -> None:
    for mode in ("RGB", "RGBA", "CMYK", "F"):
        for format_ in ("JPEG", "WEBP", "JPEG2000", "TIFF", "AVIF", "PNG"):
            picture = Image.Image()
            picture._size, picture._mode, picture.format = (13_377, 13_377), mode, format_
            assert needed_memory(picture, 20 << 20) < 4 << 30


@pytest.mark.slow
def test_the_limit_of_megapixels_can_be_raised(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "wide.png")
    script = "from kpipe.media.images import read_image; print(read_image('wide.png').shape)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert b"limit of 179 megapixels; KPIPE_MAX_MEGAPIXELS raises it" in done.stderr
    environment = {**os.environ, "KPIPE_MAX_MEGAPIXELS": "250"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, env=environment)
    assert done.stdout == b"(10000, 20000, 3)\n"


# Brightness


def ramp(top: float, kind: type[np.generic] = np.uint16) -> NDArray[np.generic]:
    return np.tile(np.linspace(0, top, 256), (64, 1)).astype(kind)


def tagged(values: NDArray[np.generic], **tags: tuple[int, int, object]) -> bytes:
    directory = ImageFileDirectory_v2()
    for tag, kind, value in tags.values():
        directory.tagtype[tag] = kind
        directory[tag] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=directory)


def check_ramp(content: bytes, tolerance: int = 2) -> None:
    expected = np.linspace(0, 255, 256)
    assert np.abs(read_image(content)[32, :, 0] - expected).max() <= tolerance


def test_one_hot_pixel_does_not_darken_twelve_bits() -> None:
    values = ramp(4095)
    values[3, 3] = 65535
    check_ramp(encoded(Image.fromarray(values), "TIFF"))
    check_ramp(encoded(Image.fromarray(values), "PNG"))


@pytest.mark.parametrize("odd", [1.0001, 3e38, -1e30, np.inf, np.nan])
def test_one_odd_value_does_not_darken_fractions(odd: float) -> None:
    values = ramp(1.0, np.float32)
    values[3, 3] = odd
    check_ramp(encoded(Image.fromarray(values), "TIFF"))


def test_fractions_with_highlights_are_not_taken_for_bytes() -> None:
    values = ramp(1.0, np.float32)
    values[:8] = 1.4
    read = read_image(encoded(Image.fromarray(values), "TIFF"))
    assert read[32, -1, 0] > 150


def test_fractions_of_0_to_255_and_below_zero() -> None:
    check_ramp(encoded(Image.fromarray(ramp(255.0, np.float32)), "TIFF"))
    check_ramp(encoded(Image.fromarray(ramp(2.0, np.float32) - np.float32(1)), "TIFF"))


def test_the_tags_of_a_tiff_say_its_range() -> None:
    # 11 bits, which no guess would find, as SMaxSampleValue and as MaxSampleValue.
    for tag in (341, 281):
        check_ramp(tagged(ramp(2047), highest=(tag, 3, 2047)))
    low = ramp(1000) + np.uint16(500)
    check_ramp(tagged(low, lowest=(340, 3, 500), highest=(341, 3, 1500)))


def test_a_tag_that_holds_the_bits_of_the_container_is_not_believed() -> None:
    for top in (65535, 60000):
        values = ramp(2500)
        values[3, 3] = top
        read = read_image(tagged(values, highest=(341, 3, top)))
        assert read[32, -1, 0] == pytest.approx(2500 / 4095 * 255, abs=2)


def test_sixteen_bits_with_a_white_of_zero() -> None:
    check_ramp(tagged((65535 - ramp(65535)).astype(np.uint16), white=(262, 3, 0)))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
@pytest.mark.parametrize("bands", [3, 4])
def test_twelve_bits_a_color_are_bright_in_spite_of_a_hot_pixel(
    tmp_path: Path, name: str, bands: int
) -> None:
    import cv2

    deep = np.repeat(ramp(4095)[..., None], bands, axis=2).astype(np.uint16)
    deep[..., 0] //= 2  # OpenCV writes blue, green, red
    deep[3, 3, :3] = 65535
    if bands == 4:
        deep[..., 3] = 65535
    assert cv2.imwrite(str(tmp_path / name), deep)
    red, green, blue = np.moveaxis(read_image(tmp_path / name)[32].astype(int), 1, 0)
    expected = np.linspace(0, 255, 256)
    assert np.abs(red - expected).max() <= 2 and np.abs(green - expected).max() <= 2
    assert np.abs(blue - expected / 2).max() <= 2


def test_the_significant_bits_of_a_png_count() -> None:
    content = encoded(Image.fromarray(ramp(1023)), "PNG")
    chunk = b"sBIT" + bytes([10])
    whole = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    place = content.index(b"IDAT") - 4
    check_ramp(content[:place] + whole + content[place:])


# Cut short


def cut(photo: Image.Image, format_: str, share: float, **options: object) -> bytes:
    content = encoded(photo, format_, **options)
    return content[: int(len(content) * share)]


@pytest.mark.parametrize("missing", [1, 2, 3])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_a_byte_short_is_read_whole(
    photo: Image.Image, mode: str, progressive: bool, missing: int
) -> None:
    content = encoded(photo.convert(mode), "JPEG", progressive=progressive, quality=90)
    short = read_photo(content[:-missing])
    difference = np.abs(short.image.astype(int) - read_image(content))
    # The third byte from the end belongs to the last blocks.
    assert difference[:-20].max() == 0 and (missing == 3 or difference.max() == 0)
    assert short.warning is not None
    if missing < 3:
        assert short.warning == "its end is missing, but no pixel is"


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("PNG", {}),
        ("WEBP", {"quality": 90}),
        ("TIFF", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("MPO", {}),
        ("GIF", {}),
        ("TGA", {}),
    ],
)
def test_what_is_there_of_a_cut_picture_is_read(
    photo: Image.Image, format_: str, options: dict[str, object]
) -> None:
    whole = read_image(encoded(photo, format_, **options))
    part = read_photo(cut(photo, format_, 0.8, **options))
    assert part.warning is not None and "cut short or damaged: " in part.warning
    assert 55 <= int(part.warning.split(": ")[1].split()[0]) <= 95
    # Two formats begin with the last row.
    there = slice(-160, None) if format_ in ("BMP", "TGA") else slice(160)
    assert np.abs(part.image[there].astype(int) - whole[there]).max() <= 2
    with pytest.raises(ImageError, match=r"incomplete|not a picture"):
        read_image(cut(photo, format_, 0.3, **options))


def test_a_tiff_with_a_damaged_strip_is_read(photo: Image.Image) -> None:
    content = bytearray(encoded(photo, "TIFF", compression="tiff_lzw", tiffinfo={278: 16}))
    directory = Image.open(io.BytesIO(content)).tag_v2  # type: ignore[attr-defined]
    begin, size = directory[273][16], directory[279][16]
    content[begin : begin + size] = b"\xff" * size
    part = read_photo(bytes(content))
    assert part.warning == "cut short or damaged: 80 % of it could be decoded"
    assert np.array_equal(part.image[:256], np.asarray(photo)[:256])


def test_a_tiff_that_is_cut_before_its_directory_is_called_damaged(photo: Image.Image) -> None:
    with pytest.raises(ImageError, match=r"damaged or incomplete"):
        read_image(cut(photo, "TIFF", 0.9, compression="tiff_lzw"))


def test_a_progressive_jpeg_without_its_last_scans_is_read(photo: Image.Image) -> None:
    part = read_photo(cut(photo, "JPEG", 0.7, progressive=True, quality=90))
    assert part.warning is not None
    assert np.abs(part.image.astype(float) - np.asarray(photo)).mean() < 20


def test_a_cut_picture_does_not_change_how_other_threads_read(photo: Image.Image) -> None:
    from PIL import ImageFile

    read_photo(cut(photo, "PNG", 0.8))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_file_of_one_byte_is_one_line() -> None:
    for byte in range(256):
        with pytest.raises(ImageError, match=r"not a picture|damaged"):
            read_image(bytes([byte]))


# Chatter


def test_what_pillow_logs_does_not_reach_standard_error(
    photo: Image.Image, kpipe: Run, tmp_path: Path
) -> None:
    content = bytearray(encoded(photo, "TIFF"))
    entry = content.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel
    content[entry + 8 : entry + 10] = struct.pack("<H", 2048)
    (tmp_path / "bad.tif").write_bytes(content)
    done = kpipe("annotate", "bad.tif", "--no-picture", "-q")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and len(lines) == 1, lines
    assert lines[0].startswith("kpipe: bad.tif: ")


def test_libtiff_is_silent_beside_our_line(photo: Image.Image, kpipe: Run, tmp_path: Path) -> None:
    content = bytearray(encoded(photo, "TIFF", compression="tiff_lzw", tiffinfo={278: 16}))
    content[2000:60_000] = np.random.default_rng(0).bytes(58_000)
    (tmp_path / "bad.tif").write_bytes(content)
    done = kpipe("annotate", "bad.tif", "--no-picture", "-q")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and len(lines) == 1, lines
    assert lines[0].startswith("kpipe: bad.tif: ")
