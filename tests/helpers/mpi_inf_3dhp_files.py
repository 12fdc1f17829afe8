"""Files of MPI-INF-3DHP's layout, with random bodies."""

import h5py
import numpy as np
import scipy.io

FRAMES = 6
FOCAL, CENTRE = (1497.693, 1497.103), (1024.704, 1051.394)


def body(seed, joints):
    """(T, joints, 3), millimetres, camera frame: about 3.5 m ahead."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-700, 700, (FRAMES, joints, 3)) + [100, -50, 3500]


def project(points, focal=FOCAL, centre=CENTRE):
    return points[..., :2] / points[..., 2:] * focal + centre


def calibration(cameras=range(14)):
    text = "Skeleton Camera Calibration File V1.0\n"
    for index in cameras:
        text += (
            f"name          {index}\n  sensor      10 10\n  size        2048 2048\n"
            f"  animated    0\n  intrinsic   {FOCAL[0]} 0 {CENTRE[0]} 0 0 {FOCAL[1]} {CENTRE[1]} 0 "
            "0 0 1 0 0 0 0 1 \n  extrinsic   0.965 0.0049 0.262 -562.87 -0.0045 0.99999 -0.0021 "
            "1398.1 -0.262 0.0008 0.965 3852.6 0 0 0 1 \n  radial      0\n"
        )
    return text


def cells(arrays):
    """A MATLAB cell array of one column."""
    column = np.empty((len(arrays), 1), object)
    for index, array in enumerate(arrays):
        column[index, 0] = array
    return column


def write_train(folder, subject="S1", sequence="Seq1", **changes):
    """annot.mat and camera.calibration; `univ_annot3` is `annot3` times 0.9."""
    path = folder / subject / sequence
    path.mkdir(parents=True)
    measured = [body(index, 28) for index in range(14)]
    content = {
        "annot2": cells([project(m).reshape(FRAMES, 56) for m in measured]),
        "annot3": cells([m.reshape(FRAMES, 84) for m in measured]),
        "univ_annot3": cells([0.9 * m.reshape(FRAMES, 84) for m in measured]),
        "cameras": np.arange(14)[None],
        "frames": np.arange(FRAMES)[:, None],
    }
    for name, change in changes.items():
        content[name] = change(content.get(name))
    scipy.io.savemat(path / "annot.mat", {k: v for k, v in content.items() if v is not None})
    (path / "camera.calibration").write_text(calibration())
    return path


def write_test(folder, sequence="TS1", seed=50, **changes):
    """annot_data.mat: MATLAB 7.3 turns the axes about, so h5py sees (T, 1, 17, D)."""
    path = folder / sequence
    path.mkdir(parents=True)
    measured = body(seed, 17)[:, None]
    content = {
        "annot2": project(measured),
        "annot3": measured,
        "univ_annot3": 0.9 * measured,
        "valid_frame": np.array([[1], [1], [0], [1], [1], [1]], np.uint8),
        "activity_annotation": np.array([[1], [1], [1], [1], [3], [3]], np.float64),
        "bb_crop": np.zeros((FRAMES, 4)),
    }
    for name, change in changes.items():
        content[name] = change(content.get(name))
    with h5py.File(path / "annot_data.mat", "w", userblock_size=512) as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    return path


def write_npz(folder, **changes):
    """The arrays that P-STMO and others train and test on."""
    seen = {str(c): {"data_2d": project(body(c, 17)), "data_3d": body(c, 17)} for c in (0, 4)}
    valid = np.array([1, 1, 0, 1, 1, 1])
    measured = body(50, 17)
    tests = {"TS1": {"data_2d": project(measured), "data_3d": measured, "valid": valid}}
    train = changes.get("train", lambda table: table)({"S1 Seq2": [seen]})
    test = changes.get("test", lambda table: table)(tests)
    np.savez_compressed(folder / "data_train_3dhp.npz", data=train)
    np.savez_compressed(folder / "data_test_3dhp.npz", data=test)
