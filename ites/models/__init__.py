"""The two networks, and the density of 2D poses."""

from ites.models.folded import FoldedModel, FoldedStudent, FoldedTeacher, fold_norms
from ites.models.prior import Prior
from ites.models.student import Student, StudentLosses
from ites.models.teacher import Teacher, TeacherLosses, TeacherOutput, TurnLosses

__all__ = [
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
