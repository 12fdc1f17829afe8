"""Philox 4x32-10, the counter-based generator behind every draw (Salmon et al., SC 2011)."""

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """The four words from counter (c0, c1, c2, c3) and key (k0, k1), all uint32."""
    for i in tl.static_range(10):
        high0, low0 = _multiply(c0, 0xD2511F53)
        high1, low1 = _multiply(c2, 0xCD9E8D57)
        key0 = (k0.to(tl.uint64) + i * 0x9E3779B9).to(tl.uint32)
        key1 = (k1.to(tl.uint64) + i * 0xBB67AE85).to(tl.uint32)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
    return c0, c1, c2, c3


@triton.jit
def _multiply(a, b: tl.constexpr):
    """Upper and lower words of the product of two uint32: one wide multiplication."""
    product = a.to(tl.uint64) * b
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def philox_words(counter, pose, sample):
    """The words of a rotation: counter int64 (3,) in memory, pose int64 [N], sample int32 [N]."""
    seed = tl.load(counter)
    offset = tl.load(counter + 1)
    return philox4x32(
        (tl.load(counter + 2) + pose).to(tl.uint32),
        sample.to(tl.uint32),
        offset.to(tl.uint32) + tl.zeros_like(pose).to(tl.uint32),
        (offset >> 32).to(tl.uint32) + tl.zeros_like(pose).to(tl.uint32),
        seed.to(tl.uint32),
        (seed >> 32).to(tl.uint32),
    )


@triton.jit
def uniform(word):
    """A uint32 word's upper 24 bits as a float32 in [0, 1), exactly."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08
