#!/usr/bin/env python3
"""Makes the images in seeds/image. coded_*.jpg hold the same coefficients, coded in four ways.
Needs Pillow and numpy; the files are committed, so building and testing need neither."""
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent / "seeds" / "image"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def save(image, name, **options):
    image.save(HERE / name, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def interlaced(width, height, bits):
    """Filtered rows of seven passes, all five filters."""
    rows = b""
    for x0, y0, dx, dy in ADAM7:
        columns, lines = (width + dx - 1 - x0) // dx, (height + dy - 1 - y0) // dy
        if columns > 0:
            for i in range(lines):
                rows += bytes([i % 5]) + bytes((i * 7 + j * 3) % 256 for j in range((columns * bits + 7) // 8))
    return rows


def save_interlaced(name, depth, colour, bits, extra):
    header = struct.pack(">IIBBBBB", 9, 7, depth, colour, 0, 0, 1)
    (HERE / name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
                              + chunk(b"IDAT", zlib.compress(interlaced(9, 7, bits))) + chunk(b"IEND", b""))


def main():
    HERE.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:25, 0:40]
    image = Image.fromarray(np.stack([x * 6, y * 10, (x * y) % 256], -1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x112] = 6

    for name, options in {"coded_baseline": {}, "coded_restart": {"restart_marker_blocks": 1},
                          "coded_progressive": {"progressive": True},
                          "coded_progressive_restart": {"progressive": True, "restart_marker_blocks": 1}}.items():
        save(image, name + ".jpg", quality=80, subsampling=2, **options)
    save(image, "full_colour.jpg", quality=80, subsampling=0)
    save(image.convert("L"), "grey.jpg")
    save(image.convert("L"), "grey_progressive.jpg", progressive=True)
    save(image, "exif.jpg", exif=exif)
    save(Image.new("RGB", (1, 1), (200, 100, 50)), "tiny.jpg", progressive=True)

    for mode in ("RGB", "L", "LA", "RGBA", "P", "1"):
        save(image.convert(mode), mode.lower() + ".png", optimize=True)
    save(image, "exif.png", exif=exif)
    save(image.convert("P"), "transparent.png", transparency=3)
    save(image.convert("P", colors=4, palette=Image.ADAPTIVE), "p2.png", bits=2)
    save_interlaced("interlaced_rgb16.png", 16, 2, 48, chunk(b"tRNS", b"\0\1\0\2\0\3"))
    save_interlaced("interlaced_grey1.png", 1, 0, 1, chunk(b"tRNS", b"\0\1"))
    save_interlaced("interlaced_p4.png", 4, 3, 4, chunk(b"PLTE", bytes(range(48))) + chunk(b"tRNS", bytes(range(16))))
    save(image, "gif.gif")


main()
