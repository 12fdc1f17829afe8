"""The two networks."""

from ites.models.folded import FoldedModel, FoldedStudent, FoldedTeacher, fold_norms
from ites.models.student import Student, StudentLosses
from ites.models.teacher import Teacher, TeacherLosses, TeacherOutput

__all__ = [
    "FoldedModel",
    "FoldedStudent",
    "FoldedTeacher",
    "Student",
    "StudentLosses",
    "Teacher",
    "TeacherLosses",
    "TeacherOutput",
    "fold_norms",
]
