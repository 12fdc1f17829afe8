"""Every operation by which a pickle can run code: none does, through the reader of Human3.6M's."""

from __future__ import annotations

import copyreg
import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ites.data.datasets.npz import load_npz, loads
from ites.errors import ItesError

HERE = __name__.encode()
RAN: list[str] = []
EXTENSION = 0x7ABC


def bomb(*_: object, **__: object) -> str:
    RAN.append("a call")
    return "ran"


class Bomb:
    """Notes that it was made, or that its state was set."""

    def __new__(cls, *_: object, **__: object) -> Bomb:
        RAN.append("__new__")
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        RAN.append("__setstate__")


class Quiet:
    """Its making is not noted, but the setting of its state."""

    def __setstate__(self, _: object) -> None:
        RAN.append("__setstate__")


def text(word: bytes) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word


DANGEROUS = {
    "REDUCE": b"c" + HERE + b"\nbomb\n)R.",
    "STACK_GLOBAL": b"\x80\x04" + text(HERE) + text(b"bomb") + b"\x93)R.",
    "INST": b"(i" + HERE + b"\nBomb\n.",
    "OBJ": b"(c" + HERE + b"\nBomb\no.",
    "NEWOBJ": b"\x80\x02c" + HERE + b"\nBomb\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04c" + HERE + b"\nBomb\n)}\x92.",
    "BUILD": b"\x80\x02c" + HERE + b"\nQuiet\n)\x81}b.",
    "EXT2": b"\x80\x02\x83" + EXTENSION.to_bytes(2, "little") + b")R.",
    "EXT4": b"\x80\x02\x84" + EXTENSION.to_bytes(4, "little") + b")R.",
    "GLOBAL": b"c" + HERE + b"\nbomb\n(tR.",
    "nested attribute": b"\x80\x04" + text(HERE) + text(b"Bomb.__new__") + b"\x93c"
    + HERE + b"\nBomb\n\x85R.",
    "list of calls": b"](c" + HERE + b"\nbomb\n)Re.",
    "key of a dict": b"}c" + HERE + b"\nbomb\n)RNs.",
    "memo": b"c" + HERE + b"\nbomb\nq\x00h\x00)R.",
    "state of an array": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b"
    b"\x87Rc" + HERE + b"\nbomb\n)Rb.",
}  # fmt: skip
"""Pickles that run code where an unpickler loads them, by the operation or the way."""
UNKNOWN = {
    "PERSID": b"Pname\n.",
    "BINPERSID": b"NQ.",
    "EXT1": b"\x80\x02\x82\x01.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05\x97\x98.",
}
"""Operations whose meaning the loading program chooses."""
HARMLESS = """
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 NONE NEWTRUE NEWFALSE UNICODE SHORT_BINUNICODE BINUNICODE
    BINUNICODE8 FLOAT BINFLOAT EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET POP DUP MARK POP_MARK GET BINGET
    LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE PROTO STOP FRAME
"""
"""Operations that move or make numbers, text and containers."""


@pytest.fixture(autouse=True)
def extension() -> Iterator[None]:
    copyreg.add_extension(__name__, "bomb", EXTENSION)
    RAN.clear()
    yield
    copyreg.remove_extension(__name__, "bomb", EXTENSION)


def test_every_operation_is_tried() -> None:
    """An operation of a later Python fails here until it is sorted in."""
    assert {op.name for op in pickletools.opcodes} <= set(HARMLESS.split()) | set(DANGEROUS) | set(
        UNKNOWN
    )


def run_of(pickled: bytes) -> None:
    try:
        pickle.loads(pickled)
    except Exception:
        assert RAN  # it failed later


@pytest.mark.parametrize("way", DANGEROUS)
def test_an_unpickler_runs_it(way: str) -> None:
    run_of(DANGEROUS[way])
    assert RAN


@pytest.mark.parametrize("way", [*DANGEROUS, *UNKNOWN])
def test_nothing_runs(way: str, tmp_path: Path) -> None:
    pickled = {**DANGEROUS, **UNKNOWN}[way]
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        loads(pickled)
    path = tmp_path / "hostile.npz"
    header = io.BytesIO()
    about = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions_3d.npy", header.getvalue() + pickled)
    with pytest.raises(
        ItesError, match=r"hostile\.npz: expected an \.npz file of arrays and dicts"
    ):
        load_npz(path)
    assert not RAN
