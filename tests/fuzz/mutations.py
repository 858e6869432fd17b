"""Ways to spoil a file: bytes, numbers, names and structures, each by a random generator."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (
    *(b"0", b"-1", b"1e308", b"-1e308", b"1e400", b"nan", b"inf", b"NaN", b"Infinity"),
    *(b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b"0.1e-400", b"", b"0x10"),
    *(b"1_0", b"true", b"null", b'"1"', b"[]", b"{}", b"\xd9\xa3", b"65537", b"4294967296"),
)
"""What stands in place of a number."""

NAMES = (
    *("", ".", "..", "/", "../../x", "/../../../PWNED", "a/../../b", "a\\..\\b", "C:x", "x/", "//"),
    *("\x1b[31mred", "a\rb", "a\nb.jpg", "\x9b2J", "\u202egpj.exe", "=1+1.jpg", "-o", "--", "~"),
    *("\u5b57" * 80 + ".jpg", "n" * 255, "n" * 300 + ".jpg", "\x00", "a\x00b.jpg", "con.jpg"),
    *('a"b,c;d.jpg', "<&>'.jpg", "%s%n", "http://x/y.jpg", "s3://b/k", "a.jpg/b.jpg", ".kpipe/x"),
    *("sheet.jpg", "faces.jsonl", "\u0130.jpg", "e\u0301.jpg", "\U0001f600.jpg", " .jpg", "a. "),
)
"""What stands in place of a name."""

WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Whole numbers at the edges of their types."""

Mutation = Callable[[Random, bytes], bytes]


def _place(random: Random, content: bytes) -> int:
    # Headers stand at the beginning and decide most.
    end = len(content) if random.random() < 0.5 else min(len(content), 256)
    return random.randrange(max(end, 1))


def bits(random: Random, content: bytes) -> bytes:
    spoilt = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 8, 32))):
        if spoilt:
            spoilt[_place(random, content)] ^= 1 << random.randrange(8)
    return bytes(spoilt)


def words(random: Random, content: bytes) -> bytes:
    """A number at the edge of its type, in one to eight bytes, of either byte order."""
    form = random.choice(("B", ">H", "<H", ">I", "<I", ">Q", "<Q"))
    size = struct.calcsize(form)
    value = random.choice(WORDS) & (256**size - 1)
    at = _place(random, content)
    return content[:at] + struct.pack(form, value) + content[at + size :]


def cut(random: Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def remove(random: Random, content: bytes) -> bytes:
    at = _place(random, content)
    return content[:at] + content[at + random.choice((1, 2, 4, 16, 64, 512)) :]


def repeat(random: Random, content: bytes) -> bytes:
    at, size = _place(random, content), random.choice((1, 4, 16, 64, 512))
    return content[:at] + content[at : at + size] * random.choice((2, 3, 50)) + content[at + size :]


def insert(random: Random, content: bytes) -> bytes:
    at = _place(random, content)
    return content[:at] + random.randbytes(random.choice((1, 4, 32))) + content[at:]


def fill(random: Random, content: bytes) -> bytes:
    at, size = _place(random, content), random.choice((4, 8, 32, 256))
    return content[:at] + random.choice((b"\xff", b"\0")) * size + content[at + size :]


def numbers(random: Random, content: bytes) -> bytes:
    """One of the numbers in a text becomes another."""
    return _one_of(random, content, rb"-?\d[\d.eE+-]*", random.choice(NUMBERS))


def names(random: Random, content: bytes) -> bytes:
    """One of the names in a text becomes another."""
    name = random.choice(NAMES).encode("utf-8", "surrogatepass")
    if random.random() < 0.3:
        name = random.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\\u001b"))
    return _one_of(random, content, rb"[A-Za-z_][\w./-]*", name)


def tokens(random: Random, content: bytes) -> bytes:
    """One of the marks of a text's structure becomes another, or many."""
    mark = random.choice((b"[", b"{", b"}", b'"', b",", b"\n", b"<", b">", b"&", b":", b"<a>"))
    return _one_of(random, content, rb'[\[\]{}",:<>\n]', mark * random.choice((1, 1, 2, 3000)))


def _one_of(random: Random, content: bytes, pattern: bytes, value: bytes) -> bytes:
    found = list(re.finditer(pattern, content[:200_000]))
    if not found:
        return content
    begin, end = random.choice(found).span()
    return content[:begin] + value + content[end:]


BYTES: tuple[Mutation, ...] = (bits, words, cut, remove, repeat, insert, fill)
TEXT: tuple[Mutation, ...] = (numbers, numbers, names, tokens)


BOXES = (
    rb"ftyp|moov|mvhd|trak|tkhd|mdia|mdhd|hdlr|minf|stbl|stsd|stts|ctts|stsc|stsz|stco|stss|edts|elst"
    rb"|avc1|avcC|hev1|hvc1|hvcC|av01|av1C|vp09|mp4v|mp4a|esds|Opus|dOps|moof|tfhd|trun|mdat|udta"
    rb"|V_[A-Z0-9/]+|A_[A-Z0-9/]+|\x1aE\xdf\xa3|\x16T\xaek|c\xa2|\xb0|\xba"
    rb"|RIFF|LIST|avih|strh|strf|idx1|movi|FMP4|MJPG|vids|auds|GIF89a|NETSCAPE|\x00\x00\x01[\xb3-\xbb]"
)
"""Names in the headers of MP4, Matroska, AVI, GIF and MPEG files."""


def boxes_of_films(random: Random, content: bytes) -> bytes:
    """Spoils the size before a name, the name, or what comes after it."""
    found = list(re.finditer(BOXES, content))
    if not found:
        return content
    begin, end = random.choice(found).span()
    at = random.choice((begin - 4, begin, end, end, end + 4, end + 8, end + 16))
    size = random.choice((1, 4, 8, 32, 100))
    piece = random.choice((b"\xff" * size, b"\0" * size, random.randbytes(size), b"free"))
    return content[: max(at, 0)] + piece + content[max(at, 0) + len(piece) :]


def with_checksums(content: bytes) -> bytes:
    """The file with the checksums of PNG and tar made right, so that a reader looks further."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(content)
    if content[257:262] == b"ustar":
        return _tar(content)
    return content


def _png(content: bytes) -> bytes:
    result, at = bytearray(content), 8
    while at + 12 <= len(result):
        size = int.from_bytes(result[at : at + 4], "big")
        if at + 12 + size > len(result):
            break
        check = zlib.crc32(result[at + 4 : at + 8 + size])
        result[at + 8 + size : at + 12 + size] = check.to_bytes(4, "big")
        at += 12 + size
    return bytes(result)


def _tar(content: bytes) -> bytes:
    result = bytearray(content)
    for at in range(0, len(result) - 511, 512):
        if result[at + 257 : at + 262] == b"ustar":
            result[at + 148 : at + 156] = b" " * 8
            total = sum(result[at : at + 512])
            result[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(result)


def mutate(random: Random, content: bytes, ways: Sequence[Mutation]) -> bytes:
    """The content, spoilt in one to four ways."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        content = random.choice(ways)(random, content)
    return with_checksums(content) if random.random() < 0.6 else content
