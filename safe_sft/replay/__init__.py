"""Replay of safety rows: which are replayed when, their teacher, and how they join a task batch."""

from ..data.batch import ReplayBatch
from .answers import answer_prompts
from .cache import TeacherCache, build_teacher_cache, cached_date, download_teacher_cache
from .joint import HiddenStateTap, joining_is_cheaper
from .memory import TeacherMemory
from .schedule import ReplaySchedule, deal
from .teacher import CachedTeacher, OnlineTeacher, Teacher, teacher_kind

__all__ = [
    "CachedTeacher",
    "HiddenStateTap",
    "OnlineTeacher",
    "ReplayBatch",
    "ReplaySchedule",
    "Teacher",
    "TeacherCache",
    "TeacherMemory",
    "answer_prompts",
    "build_teacher_cache",
    "cached_date",
    "deal",
    "download_teacher_cache",
    "joining_is_cheaper",
    "teacher_kind",
]
