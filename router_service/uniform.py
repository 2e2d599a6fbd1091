"""Randomness that any router can repeat."""

from __future__ import annotations

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position only (SplitMix64 used as a counter).

    The seed is mixed before the counter is added, so that neighbouring seeds do not give shifted
    copies of one stream. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", 2014.

    Args:
        seed: 0 to 2**64 - 1.
        position: position of the sampled token in its sequence, the prompt included.
    """
    bits = _mix((_mix((seed + _GOLDEN) & _MASK) + (position + 1) * _GOLDEN) & _MASK)
    return float(bits >> 11) * 2.0**-53


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
