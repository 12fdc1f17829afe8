"""Philox 4x32-10, the counter-based generator behind every draw (Salmon et al., SC 2011)."""

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """The four words that counter (c0, c1, c2, c3) and key (k0, k1), all uint32, give."""
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, tl.full([], 0xD2511F53, tl.uint32))
        high1 = tl.umulhi(c2, tl.full([], 0xCD9E8D57, tl.uint32))
        low0 = tl.core.mul(c0, tl.full([], 0xD2511F53, tl.uint32), sanitize_overflow=False)
        low1 = tl.core.mul(c2, tl.full([], 0xCD9E8D57, tl.uint32), sanitize_overflow=False)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.core.add(k0, tl.full([], 0x9E3779B9, tl.uint32), sanitize_overflow=False)
        k1 = tl.core.add(k1, tl.full([], 0xBB67AE85, tl.uint32), sanitize_overflow=False)
    return c0, c1, c2, c3


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
