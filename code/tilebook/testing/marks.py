"""The bits that poison is made of, format by format (NumPy only); see `poison`."""

# Name -> bits of an element to be written, and of one around it, to which one of
# `OUTSIDE_BYTES` is added.
NAN = {
    "float64": (0x7FF8_DEAD_BEEF_DEAD, 0x7FF8_0BAD_0BAD_0B00),
    "float32": (0x7FC0_DEAD, 0x7FC0_0B00),
    "float16": (0x7EAD, 0x7F00),
    "bfloat16": (0x7FED, 0xFF00),
    "float8_e5m2": (0x7F, 0x00),
    "float8_e4m3fn": (0x7F, 0x00),
}
OUTSIDE_BYTES = (0xC7, 0xB9, 0xD3, 0x8D, 0xE5, 0xA3, 0x9B)
UNWRITTEN_BYTES = (0x5B, 0x6D, 0x73, 0x35, 0x4E)
