"""The two networks, the density of 2D poses, and what takes their noise off."""

from ites.models.denoiser import Denoiser
from ites.models.folded import FoldedModel, FoldedStudent, FoldedTeacher, fold_norms
from ites.models.prior import Prior
from ites.models.student import Student, StudentLosses
from ites.models.teacher import Teacher, TeacherLosses, TeacherOutput, TurnLosses

__all__ = [
    "Denoiser",
    "FoldedModel",
    "FoldedStudent",
    "FoldedTeacher",
    "Prior",
    "Student",
    "StudentLosses",
    "Teacher",
    "TeacherLosses",
    "TeacherOutput",
    "TurnLosses",
    "fold_norms",
]
