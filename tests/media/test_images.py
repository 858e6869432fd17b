from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kpipe.errors import ImageError, WriteError
from kpipe.media.images import encode, read_image, read_photo
from kpipe.utils.files import display_name, write_file

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Smooth, and different in every corner."""
    ys, xs = np.mgrid[:60, :80]
    return np.stack([xs * 3, ys * 4, 255 - xs * 2], axis=2).astype(np.uint8)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("format_", "tolerance"),
    [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("JPEG", 12), ("WEBP", 30), ("GIF", 60), ("PPM", 0)],
)
def test_formats(picture: NDArray[np.uint8], format_: str, tolerance: int) -> None:
    read = read_image(encoded(Image.fromarray(picture), format_))
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - picture).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(picture: NDArray[np.uint8], orientation: int) -> None:
    # What a camera stores so that a viewer that obeys the tag shows `picture`.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: np.rot90(picture[:, ::-1], 1),
        8: np.rot90(picture, -1),
    }[orientation]
    if orientation == 7:
        stored = picture.transpose(1, 0, 2)[::-1, ::-1]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x013B] = "the photographer"
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    photo = read_photo(content)
    assert (photo.image == picture).all()
    # Written again it must not be turned a second time, and the rest of its EXIF is there.
    again = Image.open(io.BytesIO(encode(photo.image, ".jpg", photo)))
    assert again.getexif().get(ORIENTATION, 1) == 1
    assert again.getexif()[0x013B] == "the photographer"


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "F", "YCbCr"])
def test_modes(mode: str) -> None:
    gray = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(gray.astype(np.float32) / 255)
    else:
        image = Image.fromarray(gray).convert("RGB").convert(mode)
    format_ = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF"
    read = read_image(encoded(image, format_))
    assert read.shape == (60, 80, 3)
    if mode not in ("1", "P"):
        assert np.abs(read.mean(axis=2) - gray).max() < 12


def test_sixteen_bits_a_color(tmp_path: Path) -> None:
    import cv2

    deep = np.zeros((40, 50, 3), np.uint16)
    deep[..., 2] = 40_000  # OpenCV writes blue, green, red
    for name in ("deep.png", "deep.tif"):
        assert cv2.imwrite(str(tmp_path / name), deep)
        red, green, blue = read_image(tmp_path / name)[20, 20]
        assert (red, green, blue) == (156, 0, 0)


def test_the_depth_of_gray_is_guessed_from_its_range() -> None:
    ramp = np.tile(np.linspace(0, 1, 256), (16, 1))
    for top in (4095, 65535):
        read = read_image(encoded(Image.fromarray((ramp * top).astype(np.uint16)), "TIFF"))
        assert (read[0, 0, 0], read[0, -1, 0]) == (0, 255)


def test_damaged_exif_is_no_reason_to_refuse(picture: NDArray[np.uint8]) -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0six\0"):
        photo = read_photo(encoded(Image.fromarray(picture), "JPEG", exif=exif))
        assert photo.image.shape == picture.shape
        assert encode(photo.image, ".jpg", photo)


def test_exif_survives_from_tiff_and_is_left_out_where_it_does_not_fit(
    picture: NDArray[np.uint8],
) -> None:
    exif = Image.Exif()
    exif[0x013B] = "the photographer"
    photo = read_photo(encoded(Image.fromarray(picture), "TIFF", exif=exif))
    again = Image.open(io.BytesIO(encode(photo.image, ".jpg", photo)))
    assert again.getexif()[0x013B] == "the photographer"
    exif[0x010E] = "x" * 70_000
    photo = read_photo(encoded(Image.fromarray(picture), "PNG", exif=exif))
    assert photo.exif == b"" and encode(photo.image, ".jpg", photo)


@pytest.mark.parametrize("mode", ["F", "I", "I;16", "1", "P", "CMYK"])
def test_what_is_written_like_a_tiff_of_any_kind_can_be_read(mode: str) -> None:
    gray = Image.linear_gradient("L")
    deep = {"I": gray.convert("I"), "I;16": Image.fromarray(np.asarray(gray) * np.uint16(257))}
    content = encoded(deep.get(mode) or gray.convert(mode), "TIFF", software="kept")
    photo = read_photo(content)
    again = encode(photo.image, ".tif", photo)
    assert np.array_equal(read_image(again), photo.image)
    assert Image.open(io.BytesIO(again)).getexif()[0x0131] == "kept"


def test_pictures_too_wide_for_a_format() -> None:
    with pytest.raises(ImageError, match="cannot write this picture as"):
        encode(np.zeros((2, 70_000, 3), np.uint8), ".jpg")


def test_transparent_parts_are_white() -> None:
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    assert (read_image(encoded(clear, "PNG")) == 255).all()


def test_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    source = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(source)).save(buffer, quality=95)
    assert np.abs(read_image(buffer.getvalue()).astype(int) - source).max() < 12


def truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    return encoded(Image.fromarray(noise), "JPEG")[:8000]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"just some text", "not a picture"),
        (b"\xff\xd8\xff", "damaged|not a picture"),
        (truncated_jpeg(), "damaged or incomplete"),
        (b"II*\0 no tiff", "damaged|not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged|not a picture|HEIC"),
    ],
)
def test_bad_content_is_one_clear_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_bombs_are_refused_without_being_decoded() -> None:
    bomb = Image.new("1", (20_000, 20_000))
    with pytest.raises(ImageError, match="limit of 179 megapixels"):
        read_image(encoded(bomb, "PNG"))


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="a pipe or device"):
        read_image(tmp_path / "pipe")
    with pytest.raises(ImageError, match="pipe or device"):
        read_image("/dev/null")
    with pytest.raises(ImageError):
        read_image("nul\0byte.jpg")


def test_names_can_always_be_printed() -> None:
    assert display_name("a\nb.jpg") == "a\\nb.jpg"
    assert display_name(os.fsdecode(b"caf\xe9.jpg")) == "caf\\udce9.jpg"
    assert display_name("é ü.jpg") == "é ü.jpg"


def test_jpeg_quality_and_profile_are_kept(picture: NDArray[np.uint8]) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    original = encoded(Image.fromarray(picture), "JPEG", quality=61, icc_profile=profile)
    photo = read_photo(original)
    again = Image.open(io.BytesIO(encode(photo.image, ".jpg", photo)))
    assert again.quantization == Image.open(io.BytesIO(original)).quantization  # type: ignore[attr-defined]
    assert again.info["icc_profile"] == profile


def test_unknown_ending(picture: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"cannot write pictures named \.xyz"):
        encode(picture, ".xyz")


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("面" * 83 + ".jpg")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"old")
    with pytest.raises(WriteError, match="cannot be written"):
        write_file(blocked / "below.jpg", b"new")
    write_file(tmp_path / "new" / "folder" / "x.jpg", b"new")
    assert (tmp_path / "new" / "folder" / "x.jpg").read_bytes() == b"new"
    assert list((tmp_path / "new" / "folder").iterdir()) == [tmp_path / "new/folder/x.jpg"]
