"""Malicious images, and JPEGs with random changes."""

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.images import encode_image, scene

FACE = scene((50, 100, 240), (400, 200, 160))
JPEG = encode_image(FACE, "JPEG", quality=90)
TABLES = 700  # bytes at its start
WAYS = ("changed", "cut", "left out", "doubled", "moved")


def png(width: int, height: int, depth: int, color: int, rows: bytes, interlaced: int = 0, *more: bytes) -> bytes:
    """Return a PNG of these chunks; `rows` is compressed, `more` precede it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(size: int) -> bytes:
    """Compress this many zeros without holding them in memory."""
    packer, block = zlib.compressobj(1), bytes(1 << 20)
    whole = b"".join(packer.compress(block) for _ in range(size >> 20))
    return whole + packer.compress(bytes(size & (1 << 20) - 1)) + packer.flush()


def large_text() -> bytes:
    """Return a text chunk of 64 MB."""
    return b"Comment\0\0" + zeros(64 << 20)


def webp(width: int, height: int) -> bytes:
    """Return a lossless WebP of one color, whose pixels take no bits."""
    bits = [(width - 1, 14), (height - 1, 14), (1, 1), (0, 3), (0, 1), (0, 1), (0, 1)]
    for symbol in (10, 20, 30, 255, 0):  # green, red, blue, alpha, distance: each a code of one symbol of eight bits
        bits += [(1, 1), (0, 1), (1, 1), (symbol, 8)]
    number = place = 0
    for value, count in bits:
        number |= value << place
        place += count
    data = b"\x2f" + number.to_bytes(-(-place // 8) + 1, "little")
    data += b"\0" * (len(data) % 2)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width: int, height: int) -> bytes:
    """Return a GIF of that size whose data ends after a few pixels."""
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x02\x02\x4c\x01\x00;"


def bmp(width: int, height: int, depth: int, data: bytes, compression: int = 0) -> bytes:
    """Return a BMP with this data."""
    palette = bytes(4 << depth) if depth <= 8 else b""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def sized(jpeg: bytes, width: int, height: int) -> bytes:
    """Change the size in the header of a JPEG."""
    place = next(jpeg.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg)
    return jpeg[: place + 5] + struct.pack(">HH", height, width) + jpeg[place + 9 :]


def with_segments(*segments: tuple[int, bytes]) -> bytes:
    """Return a JPEG of two faces with more segments at its start."""
    encoded = (bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data for marker, data in segments)
    return JPEG[:2] + b"".join(encoded) + JPEG[2:]


def exif(*entries: tuple[int, int, int, int], after: int = 0) -> bytes:
    """Return EXIF data of one directory: (tag, type, count, value or offset); `after` is the next one's offset."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", after)


def animated(kind: str, frames: int = 4) -> bytes:
    """Return an animation of the scene with two faces, brighter in each frame."""
    more = [Image.fromarray(np.clip(FACE.astype(int) + 5 * step, 0, 255).astype(np.uint8)) for step in range(frames)]
    return encode_image(Image.fromarray(FACE), kind, save_all=True, append_images=more, duration=40)


LOOP = exif((0x0112, 3, 1, 6), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8), after=8)
RAMP = np.linspace(0, 65535, 640 * 480).astype(np.uint16).reshape(480, 640)
MADE: dict[str, Callable[[], bytes]] = {
    "bomb header.png": lambda: png(30_000, 30_000, 8, 2, zeros(1)),
    "bomb.png": lambda: png(12_000, 12_000, 8, 0, zeros(12_000 * 12_001)),
    "bomb of 1 bit.png": lambda: png(13_000, 13_000, 1, 0, zeros(13_000 * 1_626)),
    "bomb of color.png": lambda: png(5_900, 5_900, 8, 6, zeros(5_900 * 23_601)),
    "bomb interlaced.png": lambda: png(5_800, 5_800, 16, 6, zeros(5_800 * 46_401 + 100_000), 1),
    "bomb behind few pixels.png": lambda: png(100, 100, 8, 0, zeros(1 << 29)),
    "bomb of text.png": lambda: png(100, 100, 8, 0, zeros(10_100), 0, *[chunk(b"zTXt", large_text())] * 9),
    "bomb of a profile.png": lambda: png(100, 100, 8, 0, zeros(10_100), 0, chunk(b"iCCP", large_text())),
    "bomb of parts.png": lambda: png(100, 100, 8, 0, zeros(10_100), 0, chunk(b"prVt", b"") * 700_000),
    "bomb header.gif": lambda: gif(65_535, 65_535),
    "bomb.gif": lambda: encode_image(Image.new("P", (6_000, 6_000)), "GIF"),
    "bomb header.webp": lambda: webp(16_384, 16_384),
    "bomb.webp": lambda: webp(6_000, 6_000),
    "bomb within bounds.webp": lambda: webp(3_000, 3_000),
    "bomb header.jpg": lambda: sized(JPEG, 65_500, 65_500),
    "bomb.jpg": lambda: encode_image(Image.new("L", (12_000, 12_000)), "JPEG"),
    "bomb progressive.jpg": lambda: encode_image(
        Image.new("RGB", (5_000, 5_000)), "JPEG", progressive=True, subsampling=0
    ),
    "bomb of segments.jpg": lambda: with_segments(*[(0xFE, b"")] * 2_000_000),
    "bomb of zeros.jpg": lambda: JPEG[:2] + bytes(8_000_000) + JPEG[2:],
    "bomb header.bmp": lambda: bmp(30_000, 30_000, 24, b""),
    "bomb of runs.bmp": lambda: bmp(6_000, 6_000, 8, b"\1\0" * 4_000_000, 1),
    "60,000 x 1.png": lambda: png(60_000, 1, 8, 2, zeros(180_001)),
    "1 x 60,000.png": lambda: png(1, 60_000, 8, 2, zeros(240_000)),
    "60,000 x 1.jpg": lambda: encode_image(Image.new("RGB", (60_000, 1)), "JPEG"),
    "exif loop.jpg": lambda: with_segments((0xE1, LOOP)),
    "exif loop.png": lambda: png(640, 480, 8, 0, zeros(480 * 641), 0, chunk(b"eXIf", LOOP[6:])),
    "exif of false sizes.jpg": lambda: with_segments(
        (0xE1, exif((0x0112, 2, 2**32 - 1, 8), *[(7, 12, 2**31, 8)] * 5_000))
    ),
    "cmyk.jpg": lambda: encode_image(Image.fromarray(FACE).convert("CMYK"), "JPEG"),
    "16 bit.png": lambda: encode_image(Image.fromarray(RAMP)),
    "16 bit color.png": lambda: png(4_000, 3_000, 16, 2, zeros(3_000 * 24_001)),
    "animated.png": lambda: animated("PNG"),
    "animated.gif": lambda: animated("GIF"),
    "animated.webp": lambda: animated("WEBP"),
    "polyglot of jpeg and html.jpg": lambda: (
        with_segments((0xFE, b"<script>alert(1)</script>")) + b"PK\5\6" + bytes(18)
    ),
    "polyglot of gif and javascript.gif": lambda: b"GIF89a=1;/*" + gif(9, 9)[11:] + b"*/alert(1)",
    "a png as.jpg": lambda: encode_image(FACE),
    "a bomb of jpeg as.mp4": lambda: encode_image(Image.new("RGB", (9_000, 9_000)), "JPEG"),
    "a playlist as.mp4": lambda: b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "text as.png": lambda: b"no image" * 100,
    "an archive as.png": lambda: b"PK\3\4" + bytes(1_000),
}
"""File names and the functions that make the files."""


def mutations(first: int, last: int) -> Iterator[tuple[str, bytes]]:
    """Yield JPEGs with up to twenty random changes each, seeded by their numbers."""
    for number in range(first, last):
        random = np.random.default_rng(number)
        content = bytearray(JPEG)
        region = TABLES if number % 2 else len(JPEG)
        for _ in range(random.integers(1, 21)):
            place, size = int(random.integers(2, region)), int(random.integers(1, 40))
            part = content[place : place + size]
            match WAYS[random.integers(len(WAYS))]:
                case "changed":
                    content[place : place + 1] = bytes((random.integers(256),))
                case "cut" if number % 5 == 0:
                    del content[max(place, TABLES) :]
                case "left out":
                    del content[place : place + size]
                case "doubled":
                    content[place:place] = part
                case _:
                    del content[place : place + size]
                    content[place // 2 : place // 2] = part
        yield f"mutation {number}.jpg", bytes(content)
