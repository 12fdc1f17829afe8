"""Plausibility of 2D keypoints; a file per kind of fault."""

from ites.data.checks.check import check, check_reader, check_sample
from ites.data.checks.density import DENSITY_FLOOR, Density
from ites.data.checks.group import FEW

__all__ = ["DENSITY_FLOOR", "FEW", "Density", "check", "check_reader", "check_sample"]
