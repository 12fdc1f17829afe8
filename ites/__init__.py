"""ITES: 3D human pose from 2D alone, by an invariant teacher and an equivariant student."""

__version__ = "0.1.0"
