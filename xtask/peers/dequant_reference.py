"""Writes crates/wcodec-quant/tests/numpy.bin: dequantised codes as NumPy and ml_dtypes compute them.

    pip install numpy ml_dtypes && python xtask/peers/dequant_reference.py OUT

For every kind of code (int8, uint8, E4M3, E5M2), zero point and scale of the lists below: the 256 codes in order as F32, then as BF16,
then as F16, little-endian. The file is written once and then only compared with.
"""

import sys

import ml_dtypes
import numpy as np

KINDS = [np.int8, np.uint8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
ZEROS = [0, 37]
SCALES = [np.float32(s) for s in ["0.003921569", "-0.75", "1e-40", "2.5e36", "inf", "1.1754944e-38"]]


def bits(values, float_type):
    # One NaN for all: a clear sign and all other bits set.
    unsigned = np.dtype(f"<u{np.dtype(float_type).itemsize}")
    out = values.astype(float_type).view(unsigned)
    return np.where(np.isnan(values), np.iinfo(unsigned).max >> 1, out).astype(unsigned)


def main():
    codes = np.arange(256, dtype=np.uint8)
    with open(sys.argv[1], "wb") as out, np.errstate(all="ignore"):
        for kind in KINDS:
            q = codes.view(kind).astype(np.float32)
            for zero in ZEROS if kind in (np.int8, np.uint8) else [0]:
                difference = q - np.float32(zero) if kind in (np.int8, np.uint8) else q
                for scale in SCALES:
                    product = difference * scale
                    assert product.dtype == np.float32
                    for float_type in (np.float32, ml_dtypes.bfloat16, np.float16):
                        out.write(bits(product, float_type).tobytes())


main()
