"""Sound files of each kind, small and made here, and some that are hostile from the start."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Files = dict[str, bytes]
"""Contents by name."""

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 60\n{} loop\n"


def _drawing(width: int = 48, height: int = 40) -> Image.Image:
    """A colored gradient with some noise: compressed data of all kinds of values."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(17).integers(0, 40, (height, width, 3))
    base = np.stack([x * 4, y * 5, (x + y) * 2], axis=2)
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


@functools.cache
def pictures() -> Files:
    """Each format that is read, in several modes; and formats that nobody asks for."""
    rgb = _drawing()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a drawing"
    gray16 = Image.fromarray((np.asarray(rgb.convert("L")).astype(np.uint16) << 8) | 7)
    wanted: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "exif.jpg": (rgb, {"exif": exif, "icc_profile": b"not a profile" * 9}),
        "progressive.jpeg": (rgb, {"progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "gray.jpg": (rgb.convert("L"), {}),
        "rgb.png": (rgb, {"exif": exif}),
        "alpha.png": (rgb.convert("RGBA"), {}),
        "palette.png": (rgb.quantize(16), {"transparency": 3}),
        "deep.png": (gray16, {}),
        "bits.png": (rgb.convert("1"), {}),
        "lossy.webp": (rgb, {"exif": exif}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True}),
        "moving.webp": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "raw.tif": (rgb, {}),
        "lzw.tiff": (rgb, {"compression": "tiff_lzw"}),
        "deflate.tif": (rgb.convert("RGBA"), {"compression": "tiff_adobe_deflate"}),
        "jpeg.tif": (rgb, {"compression": "jpeg"}),
        "fax.tif": (rgb.convert("1"), {"compression": "group4"}),
        "float.tif": (rgb.convert("F"), {}),
        "deep.tif": (gray16, {}),
        "whole.tif": (rgb.convert("I"), {}),
        "cmyk.tif": (rgb.convert("CMYK"), {}),
        "rgb.bmp": (rgb, {}),
        "palette.bmp": (rgb.quantize(4), {}),
        "moving.gif": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        "rgb.avif": (rgb, {}),
        "rgb.jp2": (rgb, {}),
        "rgb.ppm": (rgb, {}),
        "deep.pgm": (gray16, {}),
        "bits.pbm": (rgb.convert("1"), {}),
        "rgb.tga": (rgb, {"compression": "tga_rle"}),
        "rgb.sgi": (rgb, {}),
        "rgb.ico": (rgb, {}),
        "rgb.dds": (rgb, {}),
        "rgb.pcx": (rgb, {}),
        "rgb.pdf": (rgb, {}),
        "rgb.eps": (rgb, {}),
        "two.mpo": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
    }
    files = {}
    for name, (picture, options) in wanted.items():
        stream = io.BytesIO()
        format_ = Image.registered_extensions().get(Path(name).suffix)
        try:
            picture.save(stream, format_, **options)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # this Pillow was built without it
        files[name] = stream.getvalue()
    return files | _heic(rgb) | {"loop.jpg": POSTSCRIPT, "psd.psd": _psd(), "loop.png": b"\xc5" * 9}


def _heic(picture: Image.Image) -> Files:
    try:
        import pillow_heif
    except ImportError:
        return {}
    stream = io.BytesIO()
    pillow_heif.from_pillow(picture).save(stream, quality=50)
    return {"photo.heic": stream.getvalue()}


def _psd() -> bytes:
    head = b"8BPS\0\1" + bytes(6) + b"\0\3" + b"\0\0\0\x08" + b"\0\0\0\x08" + b"\0\x08\0\3"
    return head + bytes(12) + b"\0\0" + bytes(8 * 8 * 3)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nbeside.ts\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile beside.ts\n"
"""Videos that are names of other files."""


@functools.cache
def videos() -> Files:
    """Containers and codecs, with and without sound; those that this FFmpeg can write."""
    from tests import films

    frames = [np.ascontiguousarray(f[::3, ::3]) for f in films.pictures(8)]
    kinds: dict[str, dict[str, Any]] = {
        "sound.mp4": {"sound": "aac"},
        "pieces.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
        "turned.mp4": {},
        "hevc.mp4": {"codec": "libx265"},
        "av1.mkv": {"codec": "libsvtav1"},
        "mpeg4.mov": {"codec": "mpeg4", "sound": "aac"},
        "film.mkv": {"sound": "libopus"},
        "film.webm": {"codec": "libvpx-vp9", "sound": "libopus"},
        "film.avi": {"codec": "mpeg4", "sound": "mp3"},
        "jpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
        "film.gif": {"codec": "gif", "pixels": "rgb8"},
        "film.mpg": {"codec": "mpeg1video"},
        "film.ts": {"sound": "aac"},
    }
    files = {}
    with tempfile.TemporaryDirectory() as folder, _silent():
        for name, options in kinds.items():
            path = Path(folder, name)
            try:
                films.write_film(path, frames, **options)
                if name.startswith("turned"):
                    films.turn(path)
                files[name] = path.read_bytes()
            except Exception:  # an encoder that this FFmpeg lacks
                continue
    return files | {"list.m3u8": PLAYLIST, "concat.mp4": CONCAT}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Encoders of videos say much on standard error."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def some_records(count: int = 2, points: int = 68) -> list[dict[str, Any]]:
    """Records with all that a record can have."""
    angle = np.linspace(0, 2 * np.pi, points)
    shape = np.round(np.stack([50 + 20 * np.cos(angle), 60 + 30 * np.sin(angle)], axis=1), 2)
    pose = {"yaw": 3.1, "pitch": -8.0, "roll": 0.4}
    face = {"box": [30.0, 30.0, 70.0, 90.0], "score": 0.98, "points": shape.tolist()}
    face |= {"sigma": [0.5] * points, "pose": pose}
    records: list[dict[str, Any]] = []
    for k in range(count):
        head = {"image": f"in/{'abc'[k % 3]}.jpg", "width": 640, "height": 480}
        records.append({**head, "scheme": "ibug68", "faces": [face] * (1 + k % 2)})
    records.append({"image": "bad.jpg", "error": "bad.jpg: empty", "faces": []})
    followed = {
        **face,
        "track": 1,
        "openness": dict.fromkeys(("right_eye", "left_eye", "mouth"), 0.3),
    }
    head = {"image": "film.mp4", "frame": 1, "time": 0.04, "width": 640, "height": 480}
    records.append({**head, "scheme": "ibug68", "faces": [{**followed, "blink": False}]})
    return records


@functools.cache
def records() -> Files:
    """Results in each format, and labels as data sets have them."""
    from kpipe.formats import FORMATS, load_format
    from kpipe.formats.records import checked_record

    files = {}
    good = [checked_record(r, "a seed") for r in some_records()]
    for name, endings in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"records{endings[0]}")
            some = good if name not in ("dlib", "pts") else good[:2]
            load_format(name).write(path, some)
            if path.is_dir():
                files["a.pts"] = next(path.rglob("*.pts")).read_bytes()
            else:
                files[path.name] = path.read_bytes()
    document = json.loads(files["records.json"])
    files["whole.json"] = json.dumps(_whole_body(document)).encode()
    rows = [f"x/{k}.jpg," + ",".join(["1.5"] * 136) for k in range(2)]
    files["ytf.csv"] = (
        "," + ",".join(str(k) for k in range(136)) + "\n" + "\n".join(rows)
    ).encode()
    return files


def _whole_body(document: dict[str, Any]) -> dict[str, Any]:
    for annotation in document["annotations"]:
        annotation["face_valid"] = True
        annotation["face_kpts"] = annotation.pop("keypoints", None)
    return document


@functools.cache
def boxes() -> Files:
    rows = "image,x0,y0,x1,y1\na.jpg,1,2,30,40.5\nfolder/b.jpg,5,5,9,9\nc.jpg,,,,\n"
    document = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 9, "height": 9} for k in (1, 2)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3.5, 4]}],
        "categories": [{"id": 1, "name": "face"}],
    }
    return {"boxes.csv": rows.encode(), "boxes.json": json.dumps(document).encode()}


@functools.cache
def kaggle() -> Files:
    """Kaggle's files, and zip files of them."""
    from kpipe.kaggle.files import COLUMNS, SIDE

    pixels = " ".join(str(k % 256) for k in range(SIDE * SIDE))
    labels = [f"{10 + k}.5" for k in range(len(COLUMNS))]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerows([(*COLUMNS, "Image"), (*labels, pixels), (*labels[:-1], "", pixels)])
    files = {
        "training.csv": table.getvalue().encode(),
        "test.csv": f"ImageId,Image\n1,{pixels}\n2,{pixels}\n".encode(),
        "IdLookupTable.csv": b"RowId,ImageId,FeatureName,Location\n1,1,left_eye_center_x,\n",
        "SampleSubmission.csv": b"RowId,Location\n1,0.0\n2,0.0\n",
    }
    for name in ("training", "test"):
        files[f"{name}.zip"] = _zip({f"{name}.csv": files[f"{name}.csv"]})
    files["test.whole.zip"] = _zip({f"{n}.zip": files[f"{n}.zip"] for n in ("training", "test")})
    return files


def _zip(files: Files, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


@functools.cache
def archives() -> Files:
    """Zip and tar archives, and such as hold odd things."""
    some = pictures()
    inside = {n: some[n] for n in ("exif.jpg", "rgb.png") if n in some} | {"f/notes.md": b"no"}
    files = {
        "a.zip": _zip(inside),
        "stored.zip": _zip(inside, zipfile.ZIP_STORED),
        "lzma.zip": _zip(inside, zipfile.ZIP_LZMA),
    }
    for name, mode, form in (
        ("a.tar", "w", tarfile.PAX_FORMAT),
        ("gnu.tar", "w", tarfile.GNU_FORMAT),
        ("old.tar", "w", tarfile.USTAR_FORMAT),
        ("a.tar.gz", "w:gz", tarfile.PAX_FORMAT),
        ("a.tar.bz2", "w:bz2", tarfile.GNU_FORMAT),
        ("a.tar.xz", "w:xz", tarfile.PAX_FORMAT),
    ):
        files[name] = tar([(tarfile.TarInfo(n), c) for n, c in inside.items()], mode, form)
    return files | {"sparse.tar": _sparse(), "link.tar": _links()}


def tar(
    members: list[tuple[tarfile.TarInfo, bytes]],
    mode: str = "w",
    form: int = tarfile.PAX_FORMAT,
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _sparse(size: int = 3 << 30) -> bytes:
    """Two kilobytes that are a picture of 3 GiB: a GNU sparse member."""
    from tests.fuzz.mutations import with_checksums

    info = tarfile.TarInfo("holes.jpg")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"%011o\0" % size
    return with_checksums(bytes(block)) + bytes(1024)


def _links() -> bytes:
    members = []
    for name, kind, target in (
        ("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("hard.jpg", tarfile.LNKTYPE, "link.jpg"),
        ("pipe.jpg", tarfile.FIFOTYPE, ""),
        ("device.jpg", tarfile.CHRTYPE, ""),
        ("folder.jpg", tarfile.DIRTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        members.append((info, b""))
    return tar(members)


def job_photos(folder: Path) -> None:
    """The photographs of the journal, with times that do not change."""
    for name in ("exif.jpg", "rgb.png"):
        (folder / name).write_bytes(pictures()[name])
        os.utime(folder / name, ns=(10**18, 10**18))


@functools.cache
def journals() -> Files:
    """The journal of a finished job."""
    from tests.fuzz import targets
    from tests.fuzz.worker import Case

    files = {}
    for variant in (0, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            inputs, results = Path(folder, "in"), Path(folder, "out")
            inputs.mkdir()
            results.mkdir()
            job_photos(inputs)
            targets.TARGETS["journals"](Case("journals", "", b"", variant), inputs, results)
            journal = results / ".kpipe" / "journal.sqlite"
            files[f"journal{variant}.sqlite"] = journal.read_bytes()
    return files


SEEDS: dict[str, Callable[[], Files]] = {
    "pictures": pictures,
    "videos": videos,
    "records": records,
    "archives": archives,
    "boxes": boxes,
    "kaggle": kaggle,
    "journals": journals,
}
"""The seeds of each kind of `tests.fuzz.targets.TARGETS`."""
