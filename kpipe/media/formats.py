"""The formats of pictures and videos that are read: closed lists, whatever libraries can do."""

from __future__ import annotations

PICTURE_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "PPM",
    "PSD",
    "ICO",
    "ICNS",
    "SGI",
    "QOI",
    "PCX",
    "TGA",
)
"""The formats that are read, by Pillow's names. Pillow knows more, some of which start another
program (PostScript starts Ghostscript) or open further files."""

UNREAD = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"\x01\0\0\0l\0\0\0", "EMF"),
    (b"\xd0\xcf\x11\xe0", "FlashPix"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
)
"""How files of other kinds begin, and their names."""

HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypheim", b"ftypmif1", b"ftypmsf1")
"""Bytes 4 to 12 of the files that `pillow-heif` reads."""

VIDEO_FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg"),
    *("mpegvideo", "m4v", "asf", "flv", "ogg", "mxf", "gxf", "dv", "h261", "h263", "h264", "hevc"),
    *("vvc", "vc1", "av1", "obu", "ivf", "nut", "rm", "wtv", "yuv4mpegpipe", "mjpeg", "gif"),
    *("apng", "swf", "3dostr", "amv", "nsv", "smjpeg", "wav", "mp3", "flac", "aac", "aiff"),
)
"""The formats of files that are read, by FFmpeg's names. FFmpeg knows more, some of which open
further files or addresses (playlists of HLS and DASH, lists of `concat`) or render text."""

FILE_OPTIONS = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": "file"}
"""FFmpeg's options for a file: only these formats, and nothing but the file."""
