"""Functions of a file that end badly; `ites.system.isolated` calls them in a child process."""

import os
from pathlib import Path

import numpy as np

from ites.errors import ItesError


def read(path, factor):
    return np.frombuffer(Path(path).read_bytes(), np.uint8) * factor


def refuse(path):
    raise ItesError(f"{path}: expected more", code="more")


def fail(path):
    raise KeyError("a fault of the reader")


def abort(path):
    os.abort()


def leave(path):
    os._exit(3)


def spin(path):
    while True:
        pass


def hog(path):
    return np.ones(1 << 33, np.uint8)


def say(path):
    print("a library's words on standard output")
    return 1
