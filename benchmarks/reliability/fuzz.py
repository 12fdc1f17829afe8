"""Give every reader broken files, and count the results.

    python -m benchmarks.reliability.fuzz --inputs 100000 [--reader bvh ...] [--seconds 600]

An input is a valid file, made here, of which bytes, words, or whole arrays and JSON values are
replaced. Each is read in a child process whose memory is limited. A watchdog ends it when an input
takes more than `SECONDS` of processor time, or `WAIT` times as long on a busy machine. Input `i` of
a reader is the same in every run; a run goes on where the one before stopped. Writes
`benchmarks/results/reliability/fuzz.csv` after every `PORTION` inputs, and the table in
`docs/reliability.md` after every reader.

Right is: read, or refused by one line of at most 300 characters that names the file.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ites.errors import ItesError
from ites.system import isolated

SECONDS, WAIT = 5.0, 20.0
PORTION = 5000
MEMORY = 1 << 30
LINE = 300
PREFIX = "ites: "
OUTCOMES = (
    "read", "refused", "raw traceback", "huge message", "no file name", "slower than 5 s",
    "over 1 GB", "process died",
)  # fmt: skip
COLUMNS = ("reader", "inputs", *OUTCOMES)
RESULTS = Path(__file__).parents[1] / "results" / "reliability" / "fuzz.csv"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MARKS = "<!-- table of benchmarks.reliability.fuzz -->", "<!-- end of the table -->"

SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where inputs are written; in memory where that is possible, as whole files are synced."""

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A reader: valid inputs, each some files by name, and what reads the first of them.

    Where it reads the `folder` of the first one, a message may name any of the files in it.
    """

    seeds: Callable[[], list[Files]]
    read: Callable[[Path], object]
    folder: bool = False


# Valid files


def _npz(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _hdf5(fill: Callable[[h5py.File], object]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        fill(file)
    return stream.getvalue()


def _small(data: bytes) -> bytes:
    """An HDF5 file whose chunks are as large as their data, without room to grow."""
    stream = io.BytesIO()
    with h5py.File(io.BytesIO(data), "r") as old, h5py.File(stream, "w") as new:

        def copy(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Group):
                made = new.require_group(name)
            elif item.chunks is None:
                made = new.create_dataset(name, data=item[()], dtype=item.dtype)
            else:
                chunks = tuple(max(1, size) for size in item.shape)
                made = new.create_dataset(
                    name, data=item[()], dtype=item.dtype, chunks=chunks, maxshape=item.maxshape
                )
            made.attrs.update(item.attrs)

        new.attrs.update(old.attrs)
        old.visititems(copy)
    return stream.getvalue()


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def _poses(frames: int, joints: int, last: int) -> np.ndarray:
    """Joints about a place 3 m ahead, or pixels."""
    values = np.random.default_rng(joints).uniform(-0.8, 0.8, (frames, joints, last))
    return values * 200 + 500 if last == 2 else values + [0, 0, 3]


def acclaim() -> list[Files]:
    """An .asf skeleton of the bones that the layout needs, and four frames."""
    from ites.data.datasets.cmu import ACCLAIM

    bones = sorted({name for recipe in ACCLAIM.joints for name in recipe})
    data = "".join(
        f"  begin\n id {i}\n name {bone}\n direction 0.3 0.8 0.1\n length {i / 4}\n"
        " axis 0 10 20 XYZ\n dof rx ry rz\n limits (-160.0 20.0)\n (-70.0 70.0)\n (-60.0 70.0)\n"
        "  end\n"
        for i, bone in enumerate(bones, 1)
    )
    asf = (
        ":version 1.10\n:name x\n:units\n mass 1.0\n length 0.45\n angle deg\n:root\n"
        " order TX TY TZ RX RY RZ\n axis XYZ\n position 0 0 0\n orientation 0 0 0\n"
        f":bonedata\n{data}:hierarchy\n  begin\n root {' '.join(bones[:6])}\n"
        + "".join(f" {a} {b}\n" for a, b in zip(bones[5:], bones[6:], strict=False))
        + "  end\n"
    )
    frames = "".join(
        f"{t}\nroot 1 15 {t} 3 4 5\n" + "".join(f"{bone} {t} 2 3\n" for bone in bones)
        for t in range(1, 5)
    )
    amc = f"#!OML:ASF x.asf\n:FULLY-SPECIFIED\n:DEGREES\n{frames}"
    return [{"07_01.amc": amc.encode(), "07.asf": asf.encode()}]


def bvh() -> list[Files]:
    """A .bvh file of each layout's joints, one chain, three frames."""
    from ites.data.datasets.cmu import JOINT_NAMES

    found = []
    for layout in JOINT_NAMES.values():
        added = {name for name, _, _ in layout.added}
        names = dict.fromkeys(name for recipe in layout.joints for name in recipe)
        names |= dict.fromkeys([*layout.short.split(), *(parent for _, parent, _ in layout.added)])
        kept = [name for name in names if name not in added and not name.endswith("_end")]
        ends = [name.removesuffix("_end") for name in names if name.endswith("_end")]
        text = "HIERARCHY\nROOT hips\n{\n OFFSET 0 0 0\n CHANNELS 6 Xposition Yposition Zposition "
        text += "Zrotation Yrotation Xrotation\n"
        size = 0.2 / layout.unit
        for i, name in enumerate(kept):
            text += f" JOINT {name}\n {{\n OFFSET {i % 3 * size:g} {i % 4 * size:g} {size:g}\n"
            text += " CHANNELS 3 Zrotation Yrotation Xrotation\n"
            text += f" End Site\n {{\n OFFSET 0 {size:g} 0\n }}\n" if name in ends else ""
            short = " JOINT neck0\n {\n OFFSET 0 0 0\n CHANNELS 0\n }\n"
            text += short if name == layout.short else ""
            text += " }\n"
        count, frames = 6 + 3 * len(kept), layout.skipped + 3
        rows = "".join(
            " ".join(str((i * t) % 30) for i in range(count)) + "\n" for t in range(frames)
        )
        text += f"}}\nMOTION\nFrames: {frames}\nFrame Time: 0.00833333\n{rows}"
        found.append({"12_01.bvh": text.encode()})
    return found


def cmu() -> list[Files]:
    """An HDF5 file of two clips."""

    def fill(file: h5py.File) -> None:
        for name in ("S01/01_01", "S07/07_01"):
            file[f"{name}/positions"] = _poses(6, 17, 3)
            file[name].attrs.update(fps=120.0, action="walk")

    return [{"cmu.h5": _hdf5(fill)}]


def h36m_npz() -> list[Files]:
    """VideoPose3D's 3D and 2D."""
    names = [("S1", "Walking 1"), ("S9", "Photo")]
    world: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    for subject, action in names:
        world.setdefault(subject, {})[action] = _poses(4, 32, 3).astype("f4")
        flat.setdefault(subject, {})[action] = [_poses(4, 17, 2) for _ in range(4)]
    meta = {"layout_name": "h36m", "keypoints_symmetry": [[4, 5], [1, 2]]}
    return [
        {"data_3d_h36m.npz": _npz({"positions_3d": world})},
        {"data_2d_h36m_gt.npz": _npz({"positions_2d": flat, "metadata": meta})},
    ]


def h36m_hdf5() -> list[Files]:
    """The older archive, one file in a folder."""
    values = _poses(4, 32, 3).reshape(4, 96).T * 1000
    data = _hdf5(lambda file: file.create_dataset("3D_positions", data=values))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("h36m/S1/MyPoses/3D_positions/Walking.h5", data)
    return [{"S1/MyPoses/3D_positions/Walking.h5": data}, {"h36m.zip": stream.getvalue()}]


def h36m_cdf() -> list[Files]:
    """One of the original files."""
    cdfwrite = __import__("cdflib.cdfwrite", fromlist=["CDF"])

    def write(path: Path) -> None:
        with cdfwrite.CDF(path) as file:
            spec = {
                "Variable": "Pose", "Data_Type": 45, "Num_Elements": 1, "Rec_Vary": True,
                "Dim_Sizes": [4, 96],
            }  # fmt: skip
            file.write_var(spec, var_data=(_poses(4, 32, 3).reshape(1, 4, 96) * 1000))

    name = "S1/MyPoseFeatures/D3_Positions/Walking.cdf"
    return [{name: _written(write, "Walking.cdf")}]


def _three_dhp_takes() -> tuple[np.ndarray, np.ndarray]:
    """Three frames of 28 joints, millimetres, and their pixels."""
    positions = np.random.default_rng(3).uniform(-700, 700, (3, 28, 3)) + [0, 0, 3500]
    return positions, positions[..., :2] / positions[..., 2:] * 1500 + 1024


def three_dhp_train() -> list[Files]:
    """annot.mat and the calibration of one camera."""
    from scipy.io import savemat

    positions, points = _three_dhp_takes()
    content = {}
    for name, values in (("annot2", points), ("annot3", positions), ("univ_annot3", positions)):
        content[name] = np.empty((1, 1), object)
        content[name][0, 0] = values.reshape(3, -1)
    stream = io.BytesIO()
    savemat(stream, content)
    text = "Skeleton Camera Calibration File V1.0\nname 0\n sensor 10 10\n size 2048 2048\n"
    text += " intrinsic 1500 0 1024 0 0 1500 1024 0 0 0 1 0 0 0 0 1\n radial 0\n"
    folder = "S1/Seq1"
    files = {f"{folder}/annot.mat": stream.getvalue()}
    return [files | {f"{folder}/camera.calibration": text.encode()}]


def three_dhp_test() -> list[Files]:
    """annot_data.mat, and the arrays of other programs."""
    positions, points = (values[:, None, :17] for values in _three_dhp_takes())

    def fill(file: h5py.File) -> None:
        file["annot2"], file["annot3"], file["univ_annot3"] = points, positions, positions
        file["valid_frame"], file["activity_annotation"] = np.ones((2, 3, 1))

    flat = {"data_2d": points[:, 0], "data_3d": positions[:, 0]}
    return [
        {"TS1/annot_data.mat": _hdf5(fill)},
        {"data_test_3dhp.npz": _npz({"data": {"TS1": flat | {"valid": np.ones(3)}}})},
        {"data_train_3dhp.npz": _npz({"data": {"S1 Seq1": [{"0": flat}]}})},
    ]


def store() -> list[Files]:
    """Pose stores with 3D, and with confidences."""
    from ites.data.store import PoseStoreWriter
    from ites.pose.camera import human36m_cameras
    from ites.pose.skeleton import HUMAN36M

    def write(path: Path, confidence: bool) -> None:
        with PoseStoreWriter(path, HUMAN36M, "a", "b") as writer:
            for camera in human36m_cameras("S1")[:2]:
                writer.add_camera(camera.id, camera)
                for split, frames in (("train", 4), ("test", 3)):
                    writer.add(
                        _poses(frames, 17, 2), camera=camera.id, subject="S1", action="walk",
                        split=split, fps=25.0,
                        positions=None if confidence else _poses(frames, 17, 3),
                        confidence=np.full((frames, 17), 0.5) if confidence else None,
                    )  # fmt: skip

    stores = (_written(lambda path, c=c: write(path, c), "s.h5") for c in (False, True))
    return [{"s.h5": _small(data)} for data in stores]


def lifted() -> list[Files]:
    """Lifted files of two clips, one with a judgement, as .npz and .h5."""
    from ites.data.clips import Clip, Clips
    from ites.data.lifted import write_clips
    from ites.pose.skeleton import HUMAN36M

    def flat(value: float) -> np.ndarray:
        return np.full(6, value, np.float32)

    rated = {"elevation": flat(0.1), "log_density": flat(-3), "sign_confidence": flat(0.9)}
    clips = [
        Clip(
            name, _poses(6, 17, 2).astype("f4"), 30.0, np.ones((6, 17), "f4"),
            _poses(6, 17, 3).astype("f4"), _poses(6, 17, 3).astype("f4") if known else None,
            focal_length=(1100.0, 1100.0) if known else None,
            image_size=(1000, 1000) if known else None, metres_per_unit=flat(0.5),
            root=_poses(6, 1, 3)[:, 0].astype("f4"), **(rated if known else {}),
        )
        for name, known in (("a", True), ("b", False))
    ]  # fmt: skip
    whole = Clips(HUMAN36M, clips, "t", "a", {"notes": ["x"]})
    npz, hdf5 = (
        _written(lambda path: write_clips(path, whole), f"l{end}") for end in (".npz", ".h5")
    )
    return [{"l.npz": npz}, {"l.h5": _small(hdf5)}]


def keypoints_npz() -> list[Files]:
    """Arrays as `ites lift` takes them."""
    arrays = {
        "keypoints": _poses(5, 17, 2), "confidence": np.ones((5, 17)), "fps": 30.0,
        "focal_length": np.array([1100.0, 1100.0]), "image_size": np.array([1000, 1000]),
    }  # fmt: skip
    sure = np.concatenate([arrays["keypoints"], np.full((5, 17, 1), 0.8)], -1)
    table = {"S1": {"walk": [arrays["keypoints"]]}}
    meta = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5], [1, 2]]}
    contents: list[dict[str, Any]] = [
        arrays, {"keypoints": sure}, {"positions_2d": table, "metadata": meta}
    ]  # fmt: skip
    return [{"k.npz": _npz(content)} for content in contents]


def keypoints_npy() -> list[Files]:
    """One array."""
    return [{"k.npy": _npy(_poses(4, 17, 2).astype("f4"))}]


def keypoints_json() -> list[Files]:
    """COCO results, a COCO file, and MMPose's predictions."""
    points = _poses(3, 17, 2)
    rows = [
        {
            "image_id": i, "category_id": 1, "score": 0.9,
            "keypoints": [float(v) for point in frame for v in (*point, 0.8)],
        }
        for i, frame in enumerate(points.round(1))
    ]  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 1000, "height": 1000} for i in range(3)]
    mmpose = {
        "meta_info": {"dataset_name": "coco"},
        "instance_info": [
            {
                "frame_id": i + 1,
                "instances": [
                    {
                        "keypoints": frame.tolist(), "keypoint_scores": [0.8] * 17,
                        "bbox": [[0, 0, 900, 900]], "bbox_score": 0.9,
                    }
                ],
            }
            for i, frame in enumerate(points.round(1))
        ],
    }  # fmt: skip
    body25 = _poses(1, 25, 2)[0].round(1)
    openpose = {
        "version": 1.3,
        "people": [
            {
                "person_id": [-1],
                "pose_keypoints_2d": [float(v) for point in body25 for v in (*point, 0.8)],
            }
        ],
    }
    alphapose = [{**row, "image_id": f"{i}.jpg", "idx": 1} for i, row in enumerate(rows)]
    mediapipe = [
        [{"x": x, "y": y, "z": 0.1, "visibility": 0.9} for x, y in frame.tolist()]
        for frame in _poses(3, 33, 2)
    ]
    ultralytics = [
        [
            {
                "name": "person", "class": 0, "confidence": 0.9, "track_id": 1,
                "box": {"x1": 0, "y1": 0, "x2": 900, "y2": 900},
                "keypoints": {
                    "x": frame[:, 0].tolist(), "y": frame[:, 1].tolist(), "visible": [0.9] * 17
                },
            }
        ]
        for frame in points.round(1)
    ]  # fmt: skip
    rtmlib = [{"keypoints": [f], "scores": [[0.8] * 17]} for f in points.round(1).tolist()]
    contents: list[Any] = [
        rows, {"images": images, "annotations": rows}, mmpose, openpose, alphapose, ultralytics,
        {"frames": mediapipe}, rtmlib,
    ]  # fmt: skip
    return [{"k.json": json.dumps(content).encode()} for content in contents]


def keypoints_csv() -> list[Files]:
    """A long table, a wide one, and DeepLabCut's."""
    from ites.pose.skeleton import HUMAN36M

    points, names = _poses(3, 17, 2).round(1), HUMAN36M.joints
    long = "frame,joint,x,y,confidence\n" + "".join(
        f"{t},{name},{x},{y},0.8\n"
        for t, frame in enumerate(points)
        for name, (x, y) in zip(names, frame, strict=True)
    )
    wide = ",".join(f"{name}_{axis}" for name in names for axis in "xy") + "\n"
    wide += "".join(",".join(map(str, frame.ravel())) + "\n" for frame in points)
    columns = [(name, axis) for name in names for axis in ("x", "y", "likelihood")]
    sure = np.concatenate([points, np.full((3, 17, 1), 0.9)], -1)
    lines = [
        ["scorer", *["net"] * len(columns)],
        ["bodyparts", *(name for name, _ in columns)],
        ["coords", *(axis for _, axis in columns)],
        *([str(t), *map(str, frame.ravel())] for t, frame in enumerate(sure)),
    ]
    deeplabcut = "\n".join(map(",".join, lines)) + "\n"
    return [{"k.csv": text.encode()} for text in (long, wide, deeplabcut)]


def keypoints_gzip() -> list[Files]:
    """Packed JSON, a packed table and packed arrays."""
    packed = (*keypoints_json()[:3], *keypoints_csv()[:1], *keypoints_npy(), *keypoints_npz()[:1])
    return [
        {f"{name}.gz": gzip.compress(data, mtime=0)} for one in packed for name, data in one.items()
    ]


def label_files() -> list[Files]:
    """Ultralytics' label files of three images, of one person and of two, tracked or not."""
    points = _poses(6, 17, 2).reshape(3, 2, 17, 2) / 1000
    seeds = []
    for people, tail in ((1, ""), (2, ""), (2, " 0.9 {}")):
        files = {}
        for t, frame in enumerate(points):
            lines = [
                f"0 0.5 0.5 0.4 0.8 {' '.join(f'{x:.4f} {y:.4f} 0.9' for x, y in person)}"
                + tail.format(number)
                for number, person in enumerate(frame[:people], 1)
            ]
            files[f"v_{t + 1}.txt"] = "\n".join(lines).encode()
        seeds.append(files)
    return seeds


def frame_files() -> list[Files]:
    """A folder of OpenPose's files per frame, COCO's results per image, and a folder per camera."""
    openpose, coco = keypoints_json()[3]["k.json"], json.loads(keypoints_json()[0]["k.json"])
    names = [f"v_{t:012d}_keypoints.json" for t in range(3)]
    images = {f"{t}.json": json.dumps([{**coco[t], "image_id": f"{t}.jpg"}]) for t in range(3)}
    return [
        dict.fromkeys(names, openpose),
        {name: text.encode() for name, text in images.items()},
        {f"cam{number}/{name}": openpose for number in range(2) for name in names[:2]},
        keypoints_npy()[0] | {"other.json": keypoints_json()[0]["k.json"]},
    ]


def keypoints_jsonl() -> list[Files]:
    """JSON Lines of frames, and people nested in JSON in other ways."""
    from ites.pose.layouts import LAYOUT_JOINTS

    points, names = _poses(3, 17, 2).round(1), LAYOUT_JOINTS["coco17"]
    named = [
        [{"x": x, "y": y, "name": n} for n, (x, y) in zip(names, frame, strict=True)]
        for frame in points.tolist()
    ]
    frames = [
        {"frame": t, "people": [{"id": 1, "keypoints": frame.tolist()}]}
        for t, frame in enumerate(points)
    ]
    vitpose = {"keypoints": [{"0": f.tolist()} for f in points], "skeleton": dict(enumerate(names))}
    contents: list[Any] = [
        {"fps": 30, "frames": frames}, [[{"keypoints": one, "score": 0.9}] for one in named],
        vitpose, [{"predictions": [[{"keypoints": f.tolist(), "bbox": [1]}]]} for f in points],
    ]  # fmt: skip
    lines = "\n".join(json.dumps(frame) for frame in frames)
    texts = [lines, *(json.dumps(content) for content in contents)]
    return [{"k.json": text.encode()} for text in texts]


def sleap() -> list[Files]:
    """SLEAP's predictions, and an analysis file."""
    from ites.pose.layouts import LAYOUT_JOINTS

    names = LAYOUT_JOINTS["coco17"]
    points = _poses(3, 17, 2)

    def project(file: h5py.File) -> None:
        frames = [(t, 0, t, t, t + 1) for t in range(3)]
        keys = ("frame_id", "video", "frame_idx", "instance_id_start", "instance_id_end")
        file["frames"] = np.array(frames, [(key, "u8") for key in keys])
        keys = ("instance_type", "track", "point_id_start", "point_id_end")
        rows = [(1, 0, 17 * t, 17 * t + 17) for t in range(3)]
        file["instances"] = np.array(rows, [(key, "i8") for key in keys])
        flat = [(x, y, True, 0.8) for x, y in points.reshape(-1, 2)]
        kinds = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("score", "f8")]
        file["pred_points"] = np.array(flat, kinds)
        nodes = [{"name": name} for name in names]
        skeleton = {"nodes": [{"id": i} for i in range(17)]}
        text = json.dumps({"nodes": nodes, "skeletons": [skeleton]})
        file.create_group("metadata").attrs.update(format_id=1.2, json=text)
        video = {"filename": "a.mp4", "backend": {"shape": [3, 1000, 1000, 3], "fps": 30.0}}
        file["videos_json"], file["tracks_json"] = [json.dumps(video)], ['[0, "anna"]']

    def analysis(file: h5py.File) -> None:
        file["tracks"] = points.transpose(2, 1, 0)[None]
        file["point_scores"] = np.full((1, 17, 3), 0.8)
        file["node_names"], file["track_names"] = list(names), ["anna"]

    return [{"k.slp": _hdf5(project)}, {"k.h5": _hdf5(analysis)}]


def deeplabcut() -> list[Files]:
    """What pandas writes of DeepLabCut's table, in its two forms."""
    from ites.pose.layouts import LAYOUT_JOINTS

    names = LAYOUT_JOINTS["coco17"]
    columns = [("net", name, coord) for name in names for coord in ("x", "y", "likelihood")]
    values = np.dstack([_poses(3, 17, 2), np.full((3, 17), 0.9)]).reshape(3, -1)

    def fixed(file: h5py.File) -> None:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame")
        for axis in ("axis0", "block0_items"):
            group.attrs[f"{axis}_nlevels"] = 3
            for level in range(3):
                parts = sorted({column[level] for column in columns})
                labels = [parts.index(column[level]) for column in columns]
                group[f"{axis}_level{level}"] = np.array(parts, "S")
                group[f"{axis}_label{level}"] = np.array(labels, np.int8)
        group["block0_values"] = values

    def table(file: h5py.File) -> None:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], 0))
        rows = np.zeros(3, [("index", "<i8"), ("values_block_0", "<f8", (len(columns),))])
        rows["index"], rows["values_block_0"] = np.arange(3), values
        data = group.create_dataset("table", data=rows)
        data.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))

    return [{"k.h5": _hdf5(fill)} for fill in (fixed, table)]


def keypoints_hdf5() -> list[Files]:
    """Arrays in HDF5, plain and compressed by Blosc."""
    blosc = __import__("hdf5plugin").Blosc()
    points = _poses(4, 17, 2)
    return [
        {"k.h5": _hdf5(lambda file, o=options: file.create_dataset("keypoints", data=points, **o))}
        for options in ({}, {"chunks": (2, 17, 2), **blosc})
    ]


def checkpoint() -> list[Files]:
    """A small teacher and a small student."""
    from ites.models import Student, Teacher
    from ites.pose.skeleton import HUMAN36M
    from ites.runs.checkpoint import Metadata, save_model

    models = {
        "teacher": Teacher(HUMAN36M, width=8, blocks=1, atoms=4),
        "student": Student(HUMAN36M, width=8, blocks=1),
    }
    return [
        {
            f"{kind}.safetensors": _written(
                lambda path, m=model, k=kind: save_model(path, m, Metadata(k, HUMAN36M, 1.5)),
                "m.safetensors",
            )
        }
        for kind, model in models.items()
    ]


def _small_training() -> tuple[Any, Any]:
    import torch

    from ites.models import Student
    from ites.pose.skeleton import HUMAN36M

    model = Student(HUMAN36M, width=8, blocks=1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def state() -> list[Files]:
    """A training's state."""
    import torch

    from ites.runs.checkpoint import save_state

    model, optimiser = _small_training()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    counters = {"step": 3, "epoch": 0}
    write = lambda path: save_state(path, model, optimiser, torch.zeros(2, 3), counters)  # noqa: E731
    return [{"student.state.safetensors": _written(write, "s.safetensors")}]


def golden() -> list[Files]:
    """Results of the camera and of the input's normalisation, small."""
    from ites.pose.camera import human36m_cameras, normalise, scale_for

    world = _poses(2, 17, 3)
    arrays: dict[str, Any] = {"camera.world_xyz": world}
    for i, camera in enumerate(human36m_cameras("S9")):
        seen = camera.world_to_camera(world)
        arrays[f"camera{i}.camera_xyz"] = seen
        arrays[f"camera{i}.pixels"] = camera.project(seen)
    pixels = _poses(2, 17, 2)
    points = normalise(pixels, np.array([1100.0, 1100.0]))
    normal = {
        "normalize.pixels": pixels, "normalize.focal": np.array([1100.0, 1100.0]),
        "normalize.out": points * scale_for(points),
    }  # fmt: skip
    return [{"golden.npz": _npz(normal)}, {"golden.npz": _npz({**normal, **arrays})}]


def released() -> list[Files]:
    """A small teacher as the released program saves it, and its arrays as .npz."""
    import torch

    state: dict[str, Any] = {}

    def layer(name: str, out: int, inputs: int) -> None:
        state[f"{name}.weight"] = torch.full((out, inputs, 1, 1), 0.1)
        state[f"{name}.bias"] = torch.zeros(out)

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{part}"] = torch.ones(channels)

    layer("fe_net.0.conv1", 8, 34)
    norm("fe_net.0.bn1", 8)
    for number, (out, inputs) in enumerate(((2, 8), (2, 2), (8, 2)), 1):
        layer(f"fe_net.1.conv{number}", out, inputs)
        norm(f"fe_net.1.bn{number}", out)
    for name, out, inputs in (("alpha", 3, 8), ("shape", 51, 3), ("rot", 3, 8), ("trans", 1, 8)):
        layer(f"{name}_layer", out, inputs)
    stream = io.BytesIO()
    torch.save({"state_dict": state}, stream)
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    return [{"released.pth": stream.getvalue()}, {"released.npz": _npz(arrays)}]


def skeleton() -> list[Files]:
    """Three of the skeletons that are built in."""
    from ites.pose.skeleton import FOLDER

    names = ("hand21", "human36m", "mpi3dhp28")
    return [{"s.toml": (FOLDER / f"{name}.toml").read_bytes()} for name in names]


def toml() -> list[Files]:
    """Settings as a run writes them."""
    from ites.runs.settings import StudentSettings, TeacherSettings, write_toml

    settings = [TeacherSettings(data="x.h5", out="run"), StudentSettings(data="x.h5", out="run")]
    return [{"c.toml": _written(lambda path: write_toml(path, settings), "c.toml")}]


# Reading


def _read_motion(path: Path) -> None:
    from ites.data.datasets.cmu import takes_of
    from ites.data.datasets.plausible import sound_frames

    source = path if path.suffix == ".h5" else path.parent
    for take in takes_of(source):
        sound_frames(take.where, take.positions, say=lambda _: None)


def _read_h36m(path: Path) -> None:
    from ites.data.datasets.h36m import takes_of
    from ites.data.datasets.plausible import sound_frames

    for take in takes_of(path if path.suffix in (".npz", ".zip") else path.parents[3]):
        sound_frames(take.where, take.positions, take.keypoints, say=lambda _: None)


def _read_3dhp(path: Path) -> None:
    from ites.data.datasets.mpi_inf_3dhp import takes_of

    depth = {"annot.mat": 2, "annot_data.mat": 1}.get(path.name)
    for _ in takes_of(path if depth is None else path.parents[depth], cameras=[0]):
        pass


def _read_store(path: Path) -> None:
    from ites.data.store import PoseStore

    with PoseStore(path) as opened:
        opened.keypoints(), opened.positions(), opened.confidence(), opened.summary()


def _read_lifted(path: Path) -> None:
    from ites.data.lifted import read_clips, read_settings

    read_clips(path)
    read_settings(path)


def _read_keypoints(path: Path, **options: Any) -> None:
    """Read and check, as `ites lift` does."""
    from ites.data.checks import check_reader
    from ites.data.keypoint_reader import KeypointReader

    with KeypointReader(path, **options) as reader:
        check_reader(reader)


def _folder_of(path: Path) -> Path:
    """The folder to read, which holds a file or the folder of its camera."""
    return path.parents[1] if path.parent.name.startswith("cam") else path.parent


def _read_folder(path: Path) -> None:
    _read_keypoints(_folder_of(path))


def _read_labels(path: Path) -> None:
    _read_keypoints(path.parent, image_size=(1000, 1000))


def _read_checkpoint(path: Path) -> None:
    from ites.runs.checkpoint import load_model

    load_model(path)


def _read_state(path: Path) -> None:
    from ites.runs.checkpoint import load_state

    load_state(path, *_small_training(), ("step", "epoch"))


def _read_golden(path: Path) -> None:
    from ites.released.conformance import check_file

    check_file(path)


def _read_toml(path: Path) -> None:
    from ites.runs.settings import STAGES, make_settings

    for stage in STAGES:
        make_settings(stage, path, {"data": "x.h5", "out": "run"})


def _read_released(path: Path) -> None:
    from ites.released.convert import convert

    convert(path, path.with_suffix(".safetensors"), 1.0)


def _read_skeleton(path: Path) -> None:
    from ites.pose.skeleton import read_skeleton

    read_skeleton(path)


READERS = {
    "amc": Reader(acclaim, _read_motion),
    "bvh": Reader(bvh, _read_motion),
    "cmu": Reader(cmu, _read_motion),
    "h36m npz": Reader(h36m_npz, _read_h36m),
    "h36m hdf5": Reader(h36m_hdf5, _read_h36m),
    "h36m cdf": Reader(h36m_cdf, _read_h36m),
    "3dhp train": Reader(three_dhp_train, _read_3dhp),
    "3dhp test": Reader(three_dhp_test, _read_3dhp),
    "store": Reader(store, _read_store),
    "lifted": Reader(lifted, _read_lifted),
    "keypoints npz": Reader(keypoints_npz, _read_keypoints),
    "keypoints npy": Reader(keypoints_npy, _read_keypoints),
    "keypoints json": Reader(keypoints_json, _read_keypoints),
    "keypoints csv": Reader(keypoints_csv, _read_keypoints),
    "keypoints jsonl": Reader(keypoints_jsonl, _read_keypoints),
    "keypoints hdf5": Reader(keypoints_hdf5, _read_keypoints),
    "keypoints gzip": Reader(keypoints_gzip, _read_keypoints),
    "files per frame": Reader(frame_files, _read_folder, folder=True),
    "label files": Reader(label_files, _read_labels, folder=True),
    "deeplabcut hdf5": Reader(deeplabcut, _read_keypoints),
    "sleap": Reader(sleap, _read_keypoints),
    "checkpoint": Reader(checkpoint, _read_checkpoint),
    "state": Reader(state, _read_state),
    "golden": Reader(golden, _read_golden),
    "released": Reader(released, _read_released),
    "toml": Reader(toml, _read_toml),
    "skeleton": Reader(skeleton, _read_skeleton),
}


# Breaking

WORDS = (
    b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-308", b"999999999999", b"-9223372036854775808",
    b"18446744073709551616", b"1" * 5000, b"[" * 2000, b'"' * 3000, b"{" * 900, b"\x00",
    b"\xff\xfe", b"null", b"true", b"?", b"\xf0\x9f\x98\x80", b"", b"a" * 20000, b"}", b"{", b"]",
)  # fmt: skip


def mutate(rng: random.Random, files: Files) -> Files:
    """Break one of the files, in one to four ways."""
    name = rng.choice(sorted(files))
    data = files[name]
    for number in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = _mutated(rng, name, data, sound=number == 0)
    return {**files, name: data}


def _mutated(rng: random.Random, name: str, data: bytes, sound: bool) -> bytes:
    ways: list[Callable[[random.Random, bytes], bytes]] = [_bytes, _cut]
    if name.endswith((".amc", ".asf", ".bvh", ".toml", ".json", ".csv", ".txt", ".calibration")):
        ways = [_words, _words, _words, _lines, *ways]
    if name.endswith(".json"):
        ways += [_json, _json, _json]
    if name.endswith((".npz", ".zip", ".pth")):
        ways += [_members, _members, _members]
    if name.endswith(".npy"):
        ways += [_header, _array, _array]
    if name.endswith(".gz"):
        inner = name.removesuffix(".gz")
        repacked = lambda rng, data: _repacked(rng, inner, data, sound)  # noqa: E731
        ways += [repacked] * 6
    if name.endswith(".safetensors"):
        ways += [_tensors, _signed, _signed, _signed]
    if name.endswith((".h5", "annot_data.mat")) and sound:  # HDF5 crashes where it changes others
        ways += [_datasets, _datasets, _datasets]
    with contextlib.suppress(Exception):  # what is broken already may not be broken by its format
        return rng.choice(ways)(rng, data)
    return _bytes(rng, data)


def _bytes(rng: random.Random, data: bytes) -> bytes:
    """Change bytes in place, the head of the file more often."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not changed:
            break
        at = rng.randrange(len(changed) if rng.random() < 0.6 else min(len(changed), 512))
        size = rng.choice((1, 1, 1, 2, 4, 8))
        changed[at : at + size] = rng.choice(
            (rng.randbytes(size), b"\x00" * size, b"\xff" * size, b"\x7f" * size)
        )
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    """Cut off, cut out, double or insert a part."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    part = data[a:b]
    return rng.choice(
        (
            data[:a],
            data[:a] + data[b:],
            data[:b] + part + data[b:],
            data[:a] + rng.choice(WORDS) + data[a:],
        )
    )


def _words(rng: random.Random, data: bytes) -> bytes:
    """Replace words by others, of the file or of `WORDS`."""
    words = data.split(b" ")
    for _ in range(rng.choice((1, 1, 2, 5))):
        words[rng.randrange(len(words))] = rng.choice((rng.choice(WORDS), rng.choice(words)))
    return b" ".join(words)


def _lines(rng: random.Random, data: bytes) -> bytes:
    """Drop, double or swap lines."""
    lines = data.split(b"\n")
    a, b = (rng.randrange(len(lines)) for _ in range(2))
    if (way := rng.randrange(3)) == 0:
        del lines[a]
    elif way == 1:
        lines[a:a] = [lines[b]] * rng.choice((1, 2, 50))
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _value(rng: random.Random) -> Any:
    """A JSON value that nobody expects."""
    deep: Any = 1
    for _ in range(rng.choice((10, 100, 900))):
        deep = [deep]
    return rng.choice(
        (None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x", "nan", [], {}, [[]],
         {"a": 1}, [1] * 50, deep, "y" * 5000)
    )  # fmt: skip


def _json(rng: random.Random, data: bytes) -> bytes:
    """Replace, drop or add a value anywhere in the tree."""
    content = json.loads(data)
    parent, key, at = None, None, content
    while isinstance(at, (dict, list)) and at and (parent is None or rng.random() < 0.8):
        parent = at
        key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        at = at[key]
    way = rng.randrange(4)
    if parent is None:
        content = _value(rng)
    elif way == 0:
        del parent[key]
    elif way == 1 and isinstance(parent, list):
        parent.extend([at] * rng.choice((1, 5, 300)))
    else:
        parent[key] = _value(rng)
    return json.dumps(content).encode()


DTYPES = ("f2", "f4", "f8", ">f8", "i1", "i4", "i8", "u8", "?", "S2", "U2", "c16", "M8[s]", "V4")


def _strange(rng: random.Random, shape: tuple[int, ...]) -> np.ndarray:
    """An array of another type, shape or of extreme values."""
    sizes = (0, 1, 2, 3, 6, 17, 1000)
    if rng.random() < 0.5:
        shape = tuple(rng.choice(sizes) for _ in range(rng.randrange(4)))
        shape = shape if np.prod(shape) < 1e5 else (3,)
    numbers = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 100, shape)
    if rng.random() < 0.5 and numbers.size:
        extreme = (np.nan, np.inf, -np.inf, 1e38, 1e300, -1, 0)
        numbers.reshape(-1)[rng.randrange(numbers.size)] = rng.choice(extreme)
    dtype = rng.choice(DTYPES)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return numbers.astype("f8" if dtype[0] in "MV" and rng.random() < 0.5 else dtype)


def _array(rng: random.Random, data: bytes) -> bytes:
    return _npy(_strange(rng, np.load(io.BytesIO(data)).shape))


def _header(rng: random.Random, data: bytes) -> bytes:
    """Another header of an .npy file, of the right length."""
    shape = rng.choice(
        ("(99999999999, 17, 2)", "(-1,)", "(1" + ",1" * 40 + ")", "(1e3,)", "(4, 17", "[4]", "((",
         "(9223372036854775807, 9223372036854775807)", "(4, 17, 2)", "(True,)", "()", "(0, 17, 2)")
    )  # fmt: skip
    descr = rng.choice(
        ("'<f4'", "'|O'", "'<f8'", "'<U99999999'", "[('a', '<f4')]", "'x'", "1", "'<M8'")
    )
    extra = rng.choice(("", "", "((((", "'x': 1,", "\x00", "(" * 300))
    order = rng.choice(("False", "True", "2"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, {extra}}}\n".encode()
    size = rng.choice((len(text), 65535, 0, 118))
    body = data[128:]
    return (
        b"\x93NUMPY"
        + bytes((rng.choice((1, 1, 2, 3, 9)), 0))
        + size.to_bytes(2, "little")
        + text
        + body
    )


class _Call:
    """Pickled, it asks the reader to call something harmless that no reader may call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getenv, ("HOME",)


def _repacked(rng: random.Random, name: str, data: bytes, sound: bool) -> bytes:
    """Break what gzip has packed."""
    return gzip.compress(_mutated(rng, name, gzip.decompress(data), sound), mtime=0)


def _members(rng: random.Random, data: bytes) -> bytes:
    """Replace, drop, add or double members of a zip archive, checksums and all."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name, way = rng.choice(sorted(members)), rng.randrange(7)
    if way == 0:
        del members[name]
    elif way == 1:
        members[name] = _mutated(rng, name, members[name], sound=False)
    elif way == 2:
        value: Any = np.empty((), object)
        shared: list[Any] = []
        for _ in range(rng.choice((3, 40))):
            shared = [shared, shared]
        value[()] = rng.choice((_Call(), {"S1": {"Walking": 1}}, shared, {"S1": {1: 2}}, "x", 1.5))
        stream = io.BytesIO()
        np.save(stream, value, allow_pickle=True)
        members[name] = stream.getvalue()
    elif way == 3:
        members[name] = _bytes(rng, members[name])
    elif way == 4 and name.endswith(".npy"):
        members[name] = _header(rng, members[name])
    elif name.endswith(".npy"):
        try:
            shape = np.load(io.BytesIO(members[name])).shape
        except ValueError:
            shape = (4, 17, 2)
        members[name] = _npy(_strange(rng, shape))
    stream = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for key, content in members.items():
            archive.writestr(key, content)
    return stream.getvalue()


def _tensors(rng: random.Random, data: bytes) -> bytes:
    """Break the JSON header of a safetensors file, its length put right."""
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    header = _json(rng, header) if rng.random() < 0.7 else _words(rng, header)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def _signed(rng: random.Random, data: bytes) -> bytes:
    """Break texts and tensors of a safetensors file, its checksum put right."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    text = header.pop("__metadata__")
    tensors = {
        name: (about["dtype"], tuple(about["shape"]), body[slice(*about["data_offsets"])])
        for name, about in header.items()
    }
    text.pop("sha256", None)
    name = rng.choice(sorted(tensors))
    if rng.random() < 0.5:
        key = rng.choice(sorted(text))
        text[key] = rng.choice(
            (
                _words(rng, text[key].encode()).decode("utf-8", "replace"),
                json.dumps(_value(rng)),
                rng.choice(WORDS).decode("utf-8", "replace"),
            )
        )
    elif rng.random() < 0.3:
        del tensors[name]
    else:
        array = _strange(rng, tensors[name][1])
        code = f"{array.dtype.kind.upper()}{8 * array.itemsize}"
        if array.dtype.kind in "fiu" and array.dtype.isnative:
            tensors[name] = (code, array.shape, np.ascontiguousarray(array).tobytes())
    text["sha256"] = _checksum(tensors, text)
    at, header = 0, {"__metadata__": text}
    for key, (code, shape, values) in tensors.items():
        offsets = [at, at := at + len(values)]
        header[key] = {"dtype": code, "shape": list(shape), "data_offsets": offsets}
    head = json.dumps(header).encode()
    parts = (values for _, _, values in tensors.values())
    return len(head).to_bytes(8, "little") + head + b"".join(parts)


def _checksum(tensors: dict[str, tuple[str, tuple[int, ...], bytes]], text: dict[str, str]) -> str:
    """The checksum that `ites.runs.checkpoint` writes and verifies."""
    digest = hashlib.sha256(json.dumps(text, sort_keys=True).encode())
    for name in sorted(tensors):
        code, shape, values = tensors[name]
        kind = {"F": "float", "I": "int", "U": "uint"}[code[0]] + code[1:]
        digest.update(f"\n{name} torch.{kind} {shape}\n".encode())
        digest.update(values)
    return digest.hexdigest()


def _datasets(rng: random.Random, data: bytes) -> bytes:
    """Replace, drop or enlarge a dataset, or change an attribute."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    access.set_file_image(data)
    with h5py.File(h5py.h5f.open(b"in memory", h5py.h5f.ACC_RDWR, access)) as file:
        names: list[str] = []
        groups: list[Any] = [file]
        file.visititems(
            lambda name, item: (names if isinstance(item, h5py.Dataset) else groups).append(
                name if isinstance(item, h5py.Dataset) else item
            )
        )
        name, group, way = rng.choice(sorted(names)), rng.choice(groups), rng.randrange(6)
        if way == 0:
            del file[name]
        elif way == 1:
            value = _strange(rng, file[name].shape)
            del file[name]
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file[name] = value.astype(rng.choice(("f4", "f8", "i4", "S3")))
        elif way == 2:
            del file[name]
            shape = rng.choice(((10**12,), (10**9, 17, 2), (6, 17, 3), (0,), ()))
            file.create_dataset(
                name,
                shape,
                rng.choice(("f4", "f8")),
                chunks=None if not shape or not shape[0] else True,
            )
        elif way == 3 and group.attrs:
            key = rng.choice(sorted(group.attrs))
            group.attrs[key] = rng.choice((1, -1.0, np.nan, "x", "", [1, 2, 3], "z" * 3000, 1e300))
        elif way == 4 and file[name].dtype.kind in "fiu" and file[name].size:
            flat = file[name][()]
            extreme = rng.choice((np.nan, np.inf, 1e38, -1, 0, 1 << 40))
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flat.reshape(-1)[rng.randrange(flat.size)] = np.float64(extreme).astype(flat.dtype)
            file[name][()] = flat
        else:
            del file[name]
            file[name] = rng.choice(
                (
                    h5py.SoftLink("/nowhere"),
                    h5py.ExternalLink("/dev/null", "/x"),
                    h5py.SoftLink("/"),
                )
            )
        file.flush()
        return file.id.get_file_image()


# Running


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    """Read a file: one of `OUTCOMES`, and what was said."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            reader.read(path)
    except ItesError as error:
        text = PREFIX + str(error)
        if "more memory than there is" in text:
            return "over 1 GB", text
        if len(text) > LINE or "\n" in text:
            return "huge message", text
        beside = (*path.parent.glob("*.asf"), *path.parent.glob("*.calibration"))
        if reader.folder:
            beside = (_folder_of(path), *_folder_of(path).rglob("*"))
        if not any(part.name in text for part in (path, *beside)):
            return "no file name", text
        return "refused", text
    except BaseException as error:
        return "raw traceback", f"{type(error).__name__}: {error}"
    return "read", ""


def broken(name: str, index: int, seeds: list[Files]) -> Files:
    """Input `index` of a reader."""
    rng = random.Random(f"{name} {index}")
    return mutate(rng, rng.choice(seeds))


def _child(name: str, stop: int, folder: str, tally: Any, out: Connection) -> None:
    """Read inputs from `tally[0]` on, which says which one is being read; count the outcomes."""
    isolated._inside = True  # a child per input would take 0.3 s
    reader = READERS[name]
    seeds = reader.seeds()
    home = Path(folder)
    for files in seeds:  # imports what it needs, too
        path = place_of(home, files)
        what, text = outcome(reader, path)
        if what != "read":
            out.send(f"expected a valid file, got {what}: {text}")
            return
    import scipy.optimize  # noqa: F401 - slow to import, and rarely needed

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for index in range(tally[0], stop):
        path = place_of(home, broken(name, index, seeds))
        begun = time.process_time()
        what, text = outcome(reader, path)
        if time.process_time() - begun > SECONDS:
            what = "slower than 5 s"
        if what not in ("read", "refused"):
            out.send((index, what, text[:500]))
        tally[1 + OUTCOMES.index(what)] += 1
        tally[0] = index + 1
    out.send("done")


def place_of(folder: Path, files: Files) -> Path:
    """Write the files of an input, alone in a folder; the first one's path."""
    paths = [folder / name for name in files]
    if {*folder.rglob("*.*")} - {*paths}:
        for old in sorted(folder.rglob("*"), reverse=True):
            old.rmdir() if old.is_dir() else old.unlink()
    for path, data in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return paths[0]


def run(name: str, inputs: int, start: int, seconds: float, say: Callable[[str], None]) -> Counter:
    """Inputs `start` to `inputs` of a reader, or as many as the time allows."""
    context, end = multiprocessing.get_context("fork"), time.monotonic() + seconds
    tally = context.RawArray("q", [start, *[0] * len(OUTCOMES)])
    with tempfile.TemporaryDirectory(dir=SCRATCH) as home:
        while tally[0] < inputs and time.monotonic() < end:
            receive, send = context.Pipe(False)
            child = context.Process(target=_child, args=(name, inputs, home, tally, send))
            child.start()
            send.close()
            first, before, since, used = tally[0], -1, time.monotonic(), 0.0
            try:
                while time.monotonic() < end:
                    if receive.poll(0.5):
                        got = receive.recv()
                        if got == "done":
                            break
                        if isinstance(got, str):
                            raise SystemExit(f"{name}: {got}")
                        say(f"{name} {got[0]}: {got[1]}: {got[2]}")
                    elif tally[0] != before:
                        before, since, used = tally[0], time.monotonic(), _used(child.pid)
                    elif before > first or _used(child.pid) > 60:  # else it imports
                        waited = time.monotonic() - since
                        if _used(child.pid) - used > SECONDS or waited > WAIT * SECONDS:
                            raise TimeoutError
            except (TimeoutError, EOFError) as error:
                what = "slower than 5 s" if isinstance(error, TimeoutError) else "process died"
                say(f"{name} {tally[0]}: {what}")
                tally[1 + OUTCOMES.index(what)] += 1
                tally[0] += 1
            finally:
                child.kill()
                child.join()
    return Counter(dict(zip(OUTCOMES, tally[1:], strict=True)))


def portions(
    name: str, inputs: int, before: dict[str, Any], end: float
) -> Iterator[tuple[int, Counter]]:
    """Go on with a reader after the counts of earlier runs: the inputs and counts so far.

    It ends after so many inputs, or when the monotonic clock says `end`.
    """
    counts = Counter({what: int(before.get(what, 0)) for what in OUTCOMES})
    while (done := counts.total()) < inputs and time.monotonic() < end:
        stop = min(done + PORTION, inputs)
        left = end - time.monotonic()
        counts.update(run(name, stop, done, left, lambda line: print(line, flush=True)))
        yield counts.total(), counts


def _used(process: int | None) -> float:
    """Seconds of processor time that a process has used."""
    try:
        numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def table(rows: list[dict[str, Any]]) -> str:
    """The counts as a Markdown table, with their sums."""
    total = {key: sum(int(row[key]) for row in rows) for key in COLUMNS[1:]}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---{'|---:' * (len(COLUMNS) - 1)}|"]
    for row in [*rows, {"reader": "all", **total}]:
        numbers = " | ".join(f"{int(row[key]):,}" for key in COLUMNS[1:])
        lines.append(f"| {row['reader']} | {numbers} |")
    return "\n".join(lines)


def show(rows: list[dict[str, Any]], page: Path = PAGE) -> None:
    """Put the table in its place on the page."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    tail = rest.split(MARKS[1], 1)[1]
    page.write_text(f"{head}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{tail}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs per reader")
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seconds", type=float, default=1e9, help="time per reader")
    parser.add_argument("--show", type=int, help="write this input to the current folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(argv)
    if given.show is not None:
        (name,) = given.reader
        files = broken(name, given.show, READERS[name].seeds())
        print(place_of(Path(tempfile.mkdtemp()), files))
        return 0
    rows: dict[str, dict[str, Any]] = {}
    if given.out.exists():
        with given.out.open(newline="") as file:
            rows = {row["reader"]: row for row in csv.DictReader(file)}
    for name in given.reader:
        end = time.monotonic() + given.seconds
        for number, counts in portions(name, given.inputs, rows.get(name, {}), end):
            rows[name] = {"reader": name, "inputs": number, **counts}
            print("  ".join(f"{key} {rows[name][key]}" for key in COLUMNS), flush=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows[key] for key in READERS if key in rows)
        if given.out == RESULTS:
            show([rows[key] for key in READERS if key in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
