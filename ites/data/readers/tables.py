"""CSV tables of keypoints, with a header or without.

- Long: one row per joint, with columns such as `frame, landmark, x, y, z, visibility`. Tables of
  several people also have `person`, `track_id` or `id`. The joint is a number or a name.
- Wide: one row per frame, with columns such as `nose_x, nose_y, nose_visibility`, `x_nose`,
  `nose (x)` or `x0, y0, v0`; or with two header rows, of joints and of coordinates.
- Without a header: one row per frame, with x, y or x, y, confidence per joint.

Cells are separated by comma, semicolon, tab or blanks. Beside semicolons and tabs a comma may be
the decimal point.

33 joints are MediaPipe's; z is ignored. DeepLabCut's tables: `ites.data.readers.deeplabcut`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ites.data.readers.frames import natural
from ites.data.readers.recording import Detections, Frame, Person, Track, track_id
from ites.errors import ItesError, shorten
from ites.pose.layouts import BY_COUNT, joint_name, joints_of

BYTES = 1 << 28
"""Maximum bytes of a CSV file."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""How a text in UTF-16 begins, such as a spreadsheet's."""
MIN_CONFIDENCE = 0.1
"""Of an unknown detector."""
ABSENT = ("", "n/a", "na", "#n/a", "null", "none", "-", "--")
"""What stands for no number in a cell, beside nan."""
_FRAME = ("frame", "frame_id", "frame_index", "frame_idx", "frame_number", "image_id", "image",
          "time", "timestamp", "filename", "file")  # fmt: skip
_JOINT = ("landmark", "landmark_id", "landmark_index", "landmark_name", "joint", "joint_id",
          "joint_name", "keypoint", "keypoint_id", "keypoint_name", "bodypart", "name", "index",
          "idx")  # fmt: skip
_PERSON = ("person", "person_id", "track_id", "track", "individual", "id", "pose_id")
_SCORE = (
    "visibility", "confidence", "likelihood", "score", "probability", "certainty", "conf", "prob",
    "c", "v", "vis", "presence", "p", "s",
)  # fmt: skip
_AXES = "|".join(("x", "y", "z", *_SCORE))
_LONG = "|".join(("x", "y", "z", *(word for word in _SCORE if len(word) > 2)))
_COORDINATE = re.compile(
    rf"^(?:(?P<name>.+?)(?:[\s_.:\-/]+(?P<axis>{_AXES})|(?P<axis1>{_LONG}))"
    rf"|(?P<axis2>{_AXES})[\s_.:\-]*(?P<number>\d+)"
    rf"|(?P<axis3>{_AXES})[\s_.:\-]+(?P<name3>[a-z].+))$"
)
_UNIT = re.compile(r"(?:[\s_.\-]+px|\s*[(\[](?:px|pixels?|-|1)[)\]]|[\s_.\-]*pixels?)$")


def read_rows(path: Path) -> list[list[str]]:
    """The cells of a CSV file, separated by comma, semicolon or tab; without empty lines.

    A first line `sep=;`, as of spreadsheets, and comments in front, lines that begin with #, are
    no rows. Lines of empty cells are, but at the end.

    Raises:
        ItesError: the file is larger than `BYTES`, or is not UTF-8 text.
    """
    size = path.stat().st_size
    if size > BYTES:
        raise ItesError(f"{path}: expected at most {BYTES:,} bytes of CSV, got {size:,}")
    data = path.read_bytes()
    wide = data[:2] in UTF_16
    if b"\0" in data[:4096] and not wide:
        raise ItesError(f"{path}: expected a CSV table, got other bytes")
    text = data.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    text = _without_comments(text.replace("\r", "\n"))
    first = text[: text.find("\n")] if "\n" in text else text
    separator = max(",;\t", key=first.count)
    if stated := re.fullmatch(r"sep=([,;\t])", first.strip(" \r")):
        text, separator = text[len(first) + 1 :], stated[1]
    elif not first.count(separator) and len(first.split()) > 2:
        return [line.split() for line in text.splitlines() if line.strip()]
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator)
            if len(row) > 1 or any(cell.strip() for cell in row)]  # fmt: skip
    while rows and _is_blank(rows[-1]):
        rows.pop()
    if separator != "," and "," in text:
        decimal = re.compile(r"\s*[-+]?\d*,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)
        rows = [
            [cell.replace(",", ".") if decimal.fullmatch(cell) else cell for cell in row]
            for row in rows
        ]
    return rows


def _without_comments(text: str) -> str:
    """A text without the comments in front; a header that begins with # loses it."""
    last = ""
    while text.startswith("#"):
        last, _, text = text.partition("\n")
    first = text.partition("\n")[0]
    is_header = last.count(",") == first.count(",") > 1
    return f"{last.lstrip('# ')}\n{text}" if is_header else text


def _is_blank(row: list[str]) -> bool:
    return not any(cell.strip() for cell in row)


def _with_index(header: list[str], body: list[list[str]]) -> list[str]:
    """The header, whose first column without a name is the frame's number if it ascends."""
    if header[0] not in ("", "unnamed: 0") or _column(header, _FRAME) is not None:
        return header
    if not all(re.fullmatch(r" *[0-9]{1,9} *", row[0]) for row in body):
        return header
    numbers = [int(row[0]) for row in body]
    ascends = all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    return [_FRAME[0], *header[1:]] if ascends else header


def parse(path: Path, rows: list[list[str]]) -> Detections:
    """Detections of a table.

    Raises:
        ItesError: its columns are not keypoints.
    """
    if not rows:
        raise ItesError(f"{path}: expected a table of keypoints, got an empty file")
    header = [cell.strip().lower() for cell in rows[0]]
    if all(_is_number(cell) for cell in header):
        return _bare(path, rows)
    body = rows[1:]
    if len(rows) > 1 and len(rows[1]) == len(header):
        second = [cell.strip().lower() for cell in rows[1]]
        if sum(cell in ("x", "y", *_SCORE) for cell in second) > 2 * len(second) / 3:
            header = [f"{a}_{b}" if b in ("x", "y", "z", *_SCORE) else b or a
                      for a, b in zip(_carried(header), second, strict=True)]  # fmt: skip
            body = rows[2:]
    if not body:
        raise ItesError(f"{path}: expected rows of keypoints under the header, got none")
    width = len(header)
    for line, row in enumerate(body, 2):
        if len(row) != width:
            raise ItesError(f"{path}: row {line}: expected {width} cells, got {len(row)}")
    header = _with_index(header, body)
    if _column(header, _FRAME) is not None:  # else a blank row is a frame without anybody
        body = [row for row in body if not _is_blank(row)]
    joint = _column(header, _JOINT)
    if joint is not None and "x" in header and "y" in header:
        return _long(path, header, body, joint)
    return _wide(path, header, body)


def _carried(cells: list[str]) -> list[str]:
    """Cells whose empty ones take the text before, as spreadsheets write joined cells."""
    carried: list[str] = []
    for cell in cells:
        carried.append(cell or (carried[-1] if carried else ""))
    return carried


def _long(path: Path, header: list[str], body: list[list[str]], joint: int) -> Detections:
    frame, person = _column(header, _FRAME), _column(header, _PERSON)
    score = _column(header, _SCORE)
    if frame is None:
        raise ItesError(f"{path}: expected a column 'frame', got {shorten(', '.join(header), 100)}")
    names = list(dict.fromkeys(row[joint].strip() for row in body))
    if len(names) > 1000:
        raise ItesError(f"{path}: expected up to 1,000 joints, got {len(names)}")
    if all(re.fullmatch(r"\d{1,4}", name) for name in names):
        first = min(map(int, names))
        count = max(map(int, names)) + 1 - min(first, 1)
        order = {name: int(name) - min(first, 1) for name in names}
        joints = None
    else:
        count, order = len(names), {name: index for index, name in enumerate(names)}
        joints = _named(names)
    places = _numbers(path, body, [header.index("x"), header.index("y")])
    sure = np.ones(len(body)) if score is None else _numbers(path, body, [score])[:, 0]
    people: dict[str, dict[tuple[str, int], NDArray[np.float32]]] = {}
    told: dict[tuple[str, str, int], int] = {}
    for index, row in enumerate(body):
        label = row[person].strip() if person is not None else ""
        at = order[row[joint].strip()]
        frames = people.setdefault(row[frame].strip(), {})
        again = told.get((row[frame].strip(), label, at), 0)  # a joint twice: somebody else's
        told[row[frame].strip(), label, at] = again + 1
        if (label, again) not in frames:
            frames[label, again] = np.full((count, 3), np.nan, np.float32)
        frames[label, again][at] = (*places[index], sure[index])
    found = _table(count, joints, score is not None)
    found.frames = [
        Frame(_frame_id(key), [Person(p, 1.0, track_id(label)) for (label, _), p in own.items()])
        for key, own in people.items()
    ]
    return found


def _wide(path: Path, header: list[str], body: list[list[str]]) -> Detections:
    columns: dict[str, dict[str, int]] = {}
    for index, cell in enumerate(header):
        plain = _UNIT.sub("", cell) if len(cell) > 3 else cell
        match = _COORDINATE.match(re.sub(r"[\[\]()]", " ", plain).strip())
        if match and cell not in _FRAME and cell not in _PERSON:
            name = match["name"] or match["number"] or match["name3"]
            axis = match["axis"] or match["axis1"] or match["axis2"] or match["axis3"]
            axis = axis if axis in "xyz" else "score"
            columns.setdefault(name, {}).setdefault(axis, index)
    columns = {name: own for name, own in columns.items() if "x" in own and "y" in own}
    if len({re.sub(r"\d+$", "", name) for name in columns}) == 1:  # kp1, kp10, kp2: by number
        columns = dict(sorted(columns.items(), key=lambda item: natural(item[0])))
    if len(columns) < 3:
        raise ItesError(
            f"{path}: expected columns of keypoints such as nose_x, nose_y or x0, y0, got "
            f"{shorten(', '.join(header), 100)}"
        )
    names = list(columns)
    places = _numbers(path, body, [columns[name][axis] for name in names for axis in "xy"])
    joints = np.ones((len(body), len(names), 3), np.float32)
    joints[..., :2] = places.reshape(len(body), -1, 2)
    scored = all("score" in own for own in columns.values())
    if scored:
        joints[..., 2] = _numbers(path, body, [own["score"] for own in columns.values()])
    known = None if all(re.search(r"^\D*\d+$", name) for name in names) else _named(names)
    found = _table(len(names), known, scored)
    frame, person = _column(header, _FRAME), _column(header, _PERSON)
    if frame is None and person is None:
        found.tracks = [Track(joints)]
        return found
    numbers = _counts([row[person].strip() for row in body]) if person is not None else []
    if frame is None:
        found.notes.append("no column of frames: each person's rows are taken as successive frames")
    found.frames = [
        Frame(
            _frame_id(row[frame]) if frame is not None else numbers[index],
            [
                Person(
                    joints[index],
                    1.0,
                    track_id(row[person].strip()) if person is not None else None,
                )
            ],
        )
        for index, row in enumerate(body)
    ]
    return found


def _counts(labels: list[str]) -> list[int]:
    """How often each label has occurred before."""
    counts: dict[str, int] = {}
    found = []
    for label in labels:
        found.append(counts.get(label, 0))
        counts[label] = found[-1] + 1
    return found


def _bare(path: Path, rows: list[list[str]]) -> Detections:
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1:
        raise ItesError(f"{path}: expected rows of equal length, got {widths[0]} to {widths[-1]}")
    width = widths[0]
    counts = [(n, c) for n in (3, 2, 4) for c in (17, 33, 25, 18, 26, 133, 136) if n * c == width]
    if not counts:
        raise ItesError(
            f"{path}: expected x, y or x, y, confidence of 17 or more joints per row, got "
            f"{width} numbers and no header"
        )
    per, count = counts[0]
    array = _numbers(path, rows, list(range(width))).reshape(len(rows), count, per)
    joints = np.ones((len(rows), count, 3), np.float32)
    joints[..., :2] = array[..., :2]
    scored = per == 4 or (per == 3 and count != 33)
    if scored:
        joints[..., 2] = array[..., -1]
    found = _table(count, None, scored)
    found.tracks = [Track(joints)]
    return found


def _table(count: int, joints: tuple[str, ...] | None, scored: bool) -> Detections:
    found = Detections("CSV table", min_confidence=MIN_CONFIDENCE, plain=True, scored=scored)
    found.joints = joints
    if count == 33 and (joints is None or "left_eye_inner" in joints or "nose" not in joints):
        found.format, found.layout, found.joints = "MediaPipe CSV", "mediapipe33", None
    elif joints is not None and count in BY_COUNT and joints == joints_of(BY_COUNT[count]):
        found.layout, found.joints = BY_COUNT[count], None
    return found


def _named(names: list[str]) -> tuple[str, ...]:
    joints = tuple(joint_name(name) for name in names)
    return joints if len(set(joints)) == len(joints) else tuple(names)


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _is_number(cell: str) -> bool:
    try:
        cell_number(cell)
    except ValueError:
        return False
    return True


def _frame_id(cell: str) -> int | float | str:
    """A frame's number, time in seconds, or name."""
    cell = cell.strip()
    if re.fullmatch(r"\d{1,9}\.\d{1,9}", cell):
        return float(cell)
    return int(cell) if re.fullmatch(r"\d{1,18}", cell) else cell


def cell_number(cell: str) -> float:
    """The number in a cell; nan for one that is empty or a word of `ABSENT`.

    Raises:
        ValueError: it holds another word.
    """
    try:
        return float(cell)
    except ValueError:
        if cell.strip().lower() in ABSENT:
            return math.nan
        raise


def _numbers(path: Path, rows: list[list[str]], columns: list[int]) -> NDArray[np.float64]:
    """Columns as numbers."""
    try:
        return np.array([[cell_number(row[c]) for c in columns] for row in rows])
    except ValueError as error:
        raise ItesError(f"{path}: expected numbers, got {shorten(error, 80)}") from None
