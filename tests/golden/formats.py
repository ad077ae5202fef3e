#!/usr/bin/env python3
"""Make the golden data of the weight formats from ggml.

    pip install numpy gguf libggml-python==0.20.2.post1
    python3 formats.py OUTDIR

OUTDIR receives, all numbers little-endian:

decode.bin  for each quantised format: u32 GGUF type, u32 number of blocks, the blocks, and for each block a u32: the
            CRC-32 of its weights as f32, NaNs as 0x7fc00000. The weights are those of ggml's decoder; where gguf.quants
            has one too, the two must agree.
rows.bin    u32 number of rows, u32 columns, the rows as f32, then one importance for each column.
encode.bin  for each format with an encoder: u32 GGUF type, then the rows of rows.bin as ggml_quantize_chunk encodes them,
            first without importance, then with it.
"""

import ctypes
import sys
import zlib
from pathlib import Path

import gguf
import libggml
import numpy as np

FOLDER = Path(libggml.__file__).parent / "lib64"
GGML = ctypes.CDLL(str(FOLDER / "libggml-base.so.0"), mode=ctypes.RTLD_GLOBAL)
# Type, columns and bytes of a block, where its f16 numbers are, where its bytes with scales are.
FORMATS = {
    "Q4_0": (2, 32, 18, [0], []),
    "Q4_1": (3, 32, 20, [0, 2], []),
    "Q5_0": (6, 32, 22, [0], []),
    "Q5_1": (7, 32, 24, [0, 2], []),
    "Q8_0": (8, 32, 34, [0], []),
    "Q2_K": (10, 256, 84, [80, 82], range(16)),
    "Q3_K": (11, 256, 110, [108], range(96, 108)),
    "Q4_K": (12, 256, 144, [0, 2], range(4, 16)),
    "Q5_K": (13, 256, 176, [0, 2], range(4, 16)),
    "Q6_K": (14, 256, 210, [208], range(192, 208)),
    "IQ4_NL": (20, 32, 18, [0], []),
    "IQ4_XS": (23, 256, 136, [0], range(2, 8)),
    "TQ1_0": (34, 256, 54, [52], []),
    "TQ2_0": (35, 256, 66, [64], []),
    "MXFP4": (39, 32, 17, [], [0]),
    "NVFP4": (40, 64, 36, [], range(4)),
    "Q1_0": (41, 128, 18, [0], []),
    "Q2_0": (42, 64, 18, [0], []),
}
# Zeros, subnormal numbers, the least and the largest, infinities and NaNs, of both signs; and ones.
HALVES = [0, 1, 2, 0x1FF, 0x3FF, 0x400, 0x401, 0x3555, 0x3C00, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF]
HALVES += [h | 0x8000 for h in HALVES]


def pointer(a, kind=ctypes.c_float):
    return a.ctypes.data_as(ctypes.POINTER(kind))


def u32(*values):
    return np.array(values, "<u4").tobytes()


def decode(name, blocks):
    _, cols, _, _, _ = FORMATS[name]
    case = "K" if name.endswith("_K") else None
    function = getattr(GGML, "dequantize_row_" + (name[:-1].lower() + case if case else name.lower()))
    out = np.zeros((len(blocks), cols), "<f4")
    function(blocks.ctypes.data_as(ctypes.c_void_p), pointer(out), ctypes.c_int64(out.size))
    out.view("<u4")[np.isnan(out)] = 0x7FC00000
    return out


def blocks(name, r):
    _, cols, size, halves, scales = FORMATS[name]
    n = {"MXFP4": 256, "NVFP4": 128}.get(name, 64 if cols == 256 else 96)
    b = r.integers(0, 256, (n, size), dtype=np.uint8)
    # Every byte has every value of the high and the low nibble; scales all 256 where there are as many blocks.
    for i in range(size):
        b[:, i] = r.permutation(np.arange(n) * (256 // n if 256 // n else 1) + r.integers(0, max(1, 256 // n), n)) & 255
    if name in ("MXFP4", "NVFP4"):
        for k, at in enumerate(scales):
            b[:, at] = (np.arange(n) + 64 * k) & 255
    for k, at in enumerate(halves):
        h = r.integers(0, 0x10000, n, dtype=np.uint16)
        h[: len(HALVES)] = np.roll(HALVES, 5 * k)
        b[:, at : at + 2] = h.astype("<u2").view(np.uint8).reshape(n, 2)
    return b


def make_decode(r):
    out = b""
    for name, (number, _, size, _, _) in FORMATS.items():
        b = blocks(name, r)
        weights = decode(name, b)
        try:
            with np.errstate(all="ignore"):
                second = gguf.quants.dequantize(b.reshape(-1), gguf.GGMLQuantizationType(number))
            second = second.reshape(weights.shape).astype("<f4")
            second.view("<u4")[np.isnan(second)] = 0x7FC00000
            differ = (second.view("<u4") != weights.view("<u4")) & ~((second == 0) & (weights == 0))
            print(f"{name}: gguf.quants differs in {differ.sum()} of {differ.size} weights")
        except (NotImplementedError, ValueError, KeyError) as e:
            print(f"{name}: not in gguf.quants ({e!r})")
        out += u32(number, len(b)) + b.tobytes() + u32(*(zlib.crc32(w.tobytes()) for w in weights))
    return out


def make_rows(r, cols):
    normal = r.standard_normal(cols)
    rows = [
        normal * 0.02,
        r.standard_t(3, cols) * 0.05,
        r.uniform(-1, 1, cols),
        np.where(np.arange(cols) % 97 == 5, 3.0, normal * 0.01),
        np.abs(normal) + 0.25,
        -np.abs(normal) - 3.0,
        r.integers(-1, 2, cols) * 0.75,
        np.repeat(r.standard_normal(cols // 64), 64) * 0.1,
        np.where(r.random(cols) < 0.9, 0.0, normal),
        normal * 1e-6,
        np.where(np.arange(cols) < cols // 2, 0.0, normal * 1e3),
        np.float16(normal * 0.1),
    ]
    return np.array(rows, "<f4")


def importance(r, cols):
    w = r.standard_normal(cols) ** 2 + 0.01
    w[64:80] = 0
    w[cols - 32 :] *= 1e4
    return w.astype("<f4")


def encode(name, rows, weights):
    number, cols, size, _, _ = FORMATS[name]
    out = np.zeros((len(rows), rows.shape[1] // cols * size), np.uint8)
    GGML.ggml_quantize_chunk.restype = ctypes.c_size_t
    given = pointer(weights) if weights is not None else None
    n = [ctypes.c_int64(v) for v in (0, *rows.shape)]
    written = GGML.ggml_quantize_chunk(number, pointer(rows), out.ctypes.data_as(ctypes.c_void_p), *n, given)
    assert written == out.size, name
    return out


def main():
    folder = Path(sys.argv[1])
    (folder / "decode.bin").write_bytes(make_decode(np.random.default_rng(1)))
    r = np.random.default_rng(2)
    rows, weights = make_rows(r, 512), importance(r, 512)
    (folder / "rows.bin").write_bytes(u32(*rows.shape) + rows.tobytes() + weights.tobytes())
    parts = [u32(FORMATS[name][0]) + encode(name, rows, None).tobytes() + encode(name, rows, weights).tobytes() for name in FORMATS]
    (folder / "encode.bin").write_bytes(b"".join(parts))


if __name__ == "__main__":
    main()
