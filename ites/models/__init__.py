"""The networks of all recipes, the density of 2D poses, the denoiser, and folding."""

from ites.models.denoiser import Denoiser
from ites.models.folded import fold_norms
from ites.models.general import GeneralTeacher
from ites.models.prior import GeneralPrior, Prior
from ites.models.student import Student, StudentLosses, UprightStudent
from ites.models.teacher import (
    Teacher,
    TeacherLosses,
    TeacherOutput,
    TurnLosses,
    UprightTeacher,
)

__all__ = [
    "Denoiser",
    "GeneralPrior",
    "GeneralTeacher",
    "Prior",
    "Student",
    "StudentLosses",
    "Teacher",
    "TeacherLosses",
    "TeacherOutput",
    "TurnLosses",
    "UprightStudent",
    "UprightTeacher",
    "fold_norms",
]
