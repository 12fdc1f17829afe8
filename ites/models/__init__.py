"""The two networks."""

from ites.models.student import Student, StudentLosses
from ites.models.teacher import Teacher, TeacherLosses, TeacherOutput

__all__ = ["Student", "StudentLosses", "Teacher", "TeacherLosses", "TeacherOutput"]
