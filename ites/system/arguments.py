"""The arguments of public functions, compared with the functions' own annotations."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ites.errors import ItesError

F = TypeVar("F", bound=Callable[..., Any])

WORDS: dict[object, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    os.PathLike: "a path",
    tuple[int, int]: "two whole numbers",
    tuple[float, float]: "two numbers",
    Mapping: "a table by name",
    Sequence: "a list",
}


class _Refused(Exception):
    """The value is not of the annotated type."""


def checked(who: str) -> Callable[[F], F]:
    """Let a function refuse arguments of another type than its annotations name.

    Scalars of numpy become Python's, and a list or an array of two numbers becomes a pair: so what
    the function stores or writes does not depend on how a number was computed. Annotations of
    other types than numbers, text, paths, pairs, tables, lists and classes are not checked.

    Args:
        who: names the function in the message.

    Raises:
        ItesError: by the function, in place of an error from within.
    """

    def decorate(function: F) -> F:
        parameters = signature(function)
        hints: dict[str, Any] = {}

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if not hints:
                hints.update(get_type_hints(function))
            bound = parameters.bind(*args, **options)
            for name, value in bound.arguments.items():
                if name in hints and parameters.parameters[name].kind not in (
                    parameters.parameters[name].VAR_KEYWORD,
                    parameters.parameters[name].VAR_POSITIONAL,
                ):
                    bound.arguments[name] = _as_annotated(who, name, value, hints[name])
            return function(*bound.args, **bound.kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _as_annotated(who: str, name: str, value: Any, hint: Any) -> Any:
    """The value as one of the types of an annotation; refused if it is of none."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for choice in choices:
        try:
            return _converted(value, choice)
        except _Refused:
            continue
    words = " or ".join(dict.fromkeys(_words(one) for one in choices if one is not NoneType))
    raise ItesError(f"{who}: {name} must be {words}, got {value!r}")


def _words(hint: Any) -> str:
    kind = get_origin(hint) or hint
    return WORDS.get(hint) or WORDS.get(kind) or f"of type {getattr(kind, '__name__', kind)}"


def _converted(value: Any, hint: Any) -> Any:
    """The value as this type.

    Raises:
        _Refused: it is none.
    """
    kind = get_origin(hint) or hint
    plain = _plain(value)
    if hint in (NoneType, None):
        good = value is None
    elif kind is bool:
        value, good = plain, isinstance(plain, bool)
    elif kind in (int, float):
        value, good = plain, _is_number(plain, whole=kind is int)
    elif kind is tuple:
        return _pair(value, get_args(hint))
    elif kind is str:
        good = isinstance(value, str)
    elif kind is os.PathLike:
        good = isinstance(value, os.PathLike)
    elif kind is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _Refused
        # Values of another type are left to the function, whose message names the entry.
        return {name: _plain(one) for name, one in value.items()}
    elif kind is Sequence:
        good = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        if isinstance(value, np.ndarray):
            good = value.ndim == 1
        if good and isinstance(value, list | tuple | np.ndarray):
            good = all(_is_of(one, get_args(hint)[0]) for one in value)
    else:
        good = not isinstance(kind, type) or kind is np.ndarray or isinstance(value, kind)
    if not good:
        raise _Refused
    return value


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python's; anything else as it is."""
    single = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if single else value


def _is_of(value: Any, hint: Any) -> bool:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for choice in choices:
        try:
            _converted(value, choice)
        except _Refused:
            continue
        return True
    return False


def _is_number(value: object, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _pair(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tuple of as many numbers as annotated; whole ones may be written as 1080.0."""
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) != 1:
        raise _Refused
    values = tuple(value.tolist() if isinstance(value, np.ndarray) else value)
    if len(values) != len(kinds):
        raise _Refused
    numbers = tuple(_converted(one, float) for one in values)
    if int not in kinds:
        return numbers
    if any(math.isfinite(one) and not float(one).is_integer() for one in numbers):
        raise _Refused
    # One that is not finite is left to the function, whose message names the range.
    return tuple(int(one) if math.isfinite(one) else one for one in numbers)
