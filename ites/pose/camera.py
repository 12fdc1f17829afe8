"""Real cameras: Human3.6M's rig, projection with distortion, and the networks' normalisation.

Camera axes: x right, y down, z forward; world axes: z up; metres and pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M, Skeleton, root_relative

HEAD_DISTANCE = 0.2
"""Mean distance from root to head in the networks' input (docs/method.md, 1.3)."""
FIELD_OF_VIEW = 55.0
"""Assumed horizontal field of view, degrees: about that of a phone or a webcam."""


def rotate_by_quaternion(quaternion: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Rotate (..., 3) vectors by a unit quaternion (w, x, y, z)."""
    w, axis = quaternion[0], quaternion[1:]
    cross = np.cross(axis, vectors)
    return vectors + 2 * (w * cross + np.cross(axis, cross))


@dataclass(frozen=True)
class Camera:
    """A calibrated camera.

    Args:
        id: its name.
        focal_length: (fx, fy) in pixels.
        center: principal point (cx, cy) in pixels.
        radial: k, the three radial distortion terms.
        tangential: p, the two tangential terms. They are Human3.6M's, not OpenCV's: see `project`.
        orientation: unit quaternion (w, x, y, z) that turns camera axes to world axes.
        translation: the camera's place in the world, metres.
        width, height: image size in pixels; 0 where unknown.
        assumed: whether the focal length is an assumption that nothing known supports.
    """

    id: str
    focal_length: tuple[float, float]
    center: tuple[float, float]
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tangential: tuple[float, float] = (0.0, 0.0)
    orientation: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    width: int = 0
    height: int = 0
    assumed: bool = False

    @property
    def known(self) -> bool:
        """Whether a turn of the camera can be computed: focal length and principal point."""
        return self.width > 0 and not self.assumed

    def world_to_camera(self, joints: np.ndarray) -> np.ndarray:
        """World joints (..., 3), metres, in this camera's axes: `rotate(inverse(q), X - t)`."""
        inverse = np.asarray(self.orientation, joints.dtype) * (1, -1, -1, -1)
        return rotate_by_quaternion(
            inverse.astype(joints.dtype), joints - np.asarray(self.translation, joints.dtype)
        )

    def camera_to_world(self, joints: np.ndarray) -> np.ndarray:
        """Joints (..., 3) in this camera's axes, metres, in the world's."""
        orientation = np.asarray(self.orientation, joints.dtype)
        return rotate_by_quaternion(orientation, joints) + np.asarray(
            self.translation, joints.dtype
        )

    def project(self, joints: np.ndarray) -> np.ndarray:
        """Pixels of joints in camera axes, with Human3.6M's distortion.

        With (x, y) = X[:2] / X[2] clamped to [-1, 1] and r2 = x^2 + y^2:
        `(x, y)' = (x, y) (1 + k0 r2 + k1 r2^2 + k2 r2^3 + p0 x + p1 y) + (p0, p1) r2`;
        pixels = focal_length * (x, y)' + center.

        Args:
            joints: (..., 3), metres, camera axes.

        Returns:
            (..., 2), pixels. Source: docs/method.md, 1.2.
        """
        point = np.clip(joints[..., :2] / joints[..., 2:], -1, 1)
        r2 = np.sum(point * point, axis=-1, keepdims=True)
        k, p = self.radial, np.asarray(self.tangential, point.dtype)
        radial = 1 + r2 * (k[0] + r2 * (k[1] + r2 * k[2]))
        tangential = np.sum(p * point, axis=-1, keepdims=True)
        distorted = point * (radial + tangential) + p * r2
        return distorted * np.asarray(self.focal_length, point.dtype) + np.asarray(
            self.center, point.dtype
        )


def focal_length_of(field_of_view: float, width: float) -> float:
    """The focal length in pixels: `width / (2 tan(field_of_view / 2))`.

    Args:
        field_of_view: horizontal, degrees.
        width: of the image, pixels.
    """
    return width / (2 * math.tan(math.radians(field_of_view) / 2))


def normalise(
    pixels: np.ndarray,
    focal_length: np.ndarray | tuple[float, float],
    scale: float = 1.0,
    root: int = 0,
) -> np.ndarray:
    """The networks' input: pixels minus the root's pixel, over the focal length, times `scale`.

    Args:
        pixels: (..., J, 2).
        focal_length: (fx, fy) in pixels, or anything that broadcasts against (..., J, 2).
        scale: one factor for the whole split; see `scale_for`.
        root: the joint that becomes the origin.

    Returns:
        (..., J, 2), network units. Source: docs/method.md, 1.3.
    """
    return root_relative(pixels, root) / focal_length * scale


def axis_turn(points: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """The rotations that bring lines of sight onto the optical axis of an upright camera.

    `Rz(roll)` makes the camera upright. A turn about y by `atan(x)` and one about x by
    `atan(y / sqrt(1 + x^2))` follow, for `[x, y]` after the first: a level camera stays level.
    `[x, y, 1] @ R = [0, 0, sqrt(1 + x^2 + y^2)]`.

    Args:
        points: (..., 2), the lines of sight, pixels from the principal point over the focal length.
        roll: of the camera, radians, clockwise: the image is turned clockwise by it.

    Returns:
        R (..., 3, 3) float64; camera axes, acts on row vectors from the right.
    """
    points = np.asarray(points, np.float64)
    upright = _turn(1, 0, np.float64(roll))
    x, y = np.moveaxis(points @ upright[:2, :2], -1, 0)
    return upright @ _turn(2, 0, np.arctan(x)) @ _turn(2, 1, np.arctan2(y, np.hypot(1, x)))


def _turn(to: int, start: int, angle: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) of row vectors by angles, from axis `start` towards axis `to`."""
    turn = np.zeros((*np.shape(angle), 3, 3))
    turn[..., range(3), range(3)] = 1
    turn[..., to, to] = turn[..., start, start] = np.cos(angle)
    turn[..., start, to], turn[..., to, start] = np.sin(angle), -np.sin(angle)
    return turn


def turn_points(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The image of points after the camera has turned: `Y[:2] / Y[2]` with `Y = [x, y, 1] @ R`.

    Args:
        points: (T, J, 2), pixels from the principal point over the focal length.
        turns: R (T, 3, 3), see `axis_turn`.

    Returns:
        (T, J, 2) of the dtype of `points`. A point at 84 degrees from the axis or beyond stays at
        84 degrees, so that none comes from behind.
    """
    rays = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ turns
    length = np.linalg.norm(rays, axis=-1, keepdims=True)
    return (rays[..., :2] / np.maximum(rays[..., 2:], 0.1 * length)).astype(points.dtype)


def turn_back(
    poses: np.ndarray, turns: np.ndarray, size: np.ndarray | float, distance: float = 5.0
) -> np.ndarray:
    """Lifted poses in the axes and perspective of a known camera.

    The networks take a person c units away. One who looks as large from `c size` units away has the
    same depths d and `[x, y] (c + d / size) / (c + d)`; then `@ R^T`.

    Args:
        poses: (T, J, 3), lifted, network units, relative to the root on the optical axis.
        turns: R (T, 3, 3), see `axis_turn`.
        size: one number or (T): the networks' input is the turned points times it.
        distance: c, `ites.pose.geometry.DISTANCE`.

    Returns:
        (T, J, 3) float32, network units, camera axes.
    """
    poses = np.asarray(poses, np.float64)
    size = np.reshape(size, (-1, 1, 1))
    depth = poses[..., 2:]
    flat = poses[..., :2] * (distance + depth / size) / np.maximum(distance + depth, 1)
    turned = np.concatenate([flat, depth], -1) @ turns.swapaxes(-1, -2)
    return turned.astype(np.float32)


def scale_for(points: np.ndarray, skeleton: Skeleton = HUMAN36M) -> float:
    """The factor that makes the mean root-to-head distance `HEAD_DISTANCE`.

    Args:
        points: (N, J, 2), `normalise`d with scale 1, all poses of the split.

    Raises:
        ItesError: there are no poses, or root and head coincide in all of them.
    """
    lines = points[:, skeleton.head].astype(np.float64) - points[:, skeleton.root]
    mean = float(np.linalg.norm(lines, axis=-1).mean()) if len(points) else 0.0
    if not mean > 0:
        root, head = skeleton.joints[skeleton.root], skeleton.joints[skeleton.head]
        raise ItesError(
            f"scale_for: the mean distance from {root} to {head} must be positive, "
            f"got {mean} over {len(points)} poses"
        )
    return HEAD_DISTANCE / mean


# Human3.6M's published calibration: four cameras, and where they stood for each subject.
# fmt: off
_INTRINSICS = (
    # id, focal length, centre, radial, tangential, width, height
    ('54138969', (1145.0494384765625, 1143.7811279296875),
     (512.54150390625, 515.4514770507812),
     (-0.20709891617298126, 0.24777518212795258, -0.0030751503072679043),
     (-0.0009756988729350269, -0.00142447161488235), 1000, 1002),
    ('55011271', (1149.6756591796875, 1147.5916748046875),
     (508.8486328125, 508.0649108886719),
     (-0.1942136287689209, 0.2404085397720337, 0.006819975562393665),
     (-0.0016190266469493508, -0.0027408944442868233), 1000, 1000),
    ('58860488', (1149.1407470703125, 1148.7989501953125),
     (519.8158569335938, 501.40264892578125),
     (-0.2083381861448288, 0.25548800826072693, -0.0024604974314570427),
     (0.0014843869721516967, -0.0007599993259645998), 1000, 1000),
    ('60457274', (1145.5113525390625, 1144.77392578125),
     (514.9682006835938, 501.88201904296875),
     (-0.198384091258049, 0.21832367777824402, -0.008947807364165783),
     (-0.0005872055771760643, -0.0018133620033040643), 1000, 1002),
)
_EXTRINSICS = {  # orientation (w, x, y, z); translation in millimetres
    'S1': (
        ((0.1407056450843811, -0.1500701755285263, -0.755240797996521, 0.6223280429840088),
         (1841.1070556640625, 4955.28466796875, 1563.4454345703125)),
        ((0.6157187819480896, -0.764836311340332, -0.14833825826644897, 0.11794740706682205),
         (1761.278564453125, -5078.0068359375, 1606.2650146484375)),
        ((0.14651472866535187, -0.14647851884365082, 0.7653023600578308, -0.6094175577163696),
         (-1846.7777099609375, 5215.04638671875, 1491.972412109375)),
        ((0.5834008455276489, -0.7853162288665771, 0.14548823237419128, -0.14749594032764435),
         (-1794.7896728515625, -3722.698974609375, 1574.8927001953125)),
    ),
    'S5': (
        ((0.1467377245426178, -0.162370964884758, -0.7551892995834351, 0.6178938746452332),
         (2097.3916015625, 4880.94482421875, 1605.732421875)),
        ((0.6159758567810059, -0.7626792192459106, -0.15728192031383514, 0.1189815029501915),
         (2031.7008056640625, -5167.93310546875, 1612.923095703125)),
        ((0.14291371405124664, -0.12907841801643372, 0.7678384780883789, -0.6110143065452576),
         (-1620.5948486328125, 5171.65869140625, 1496.43701171875)),
        ((0.5920479893684387, -0.7814217805862427, 0.1274748593568802, -0.15036417543888092),
         (-1637.1737060546875, -3867.3173828125, 1547.033203125)),
    ),
    'S6': (
        ((0.1337897777557373, -0.15692396461963654, -0.7571090459823608, 0.6198879480361938),
         (1935.4517822265625, 4950.24560546875, 1618.0838623046875)),
        ((0.6147197484970093, -0.7628812789916992, -0.16174767911434174, 0.11819244921207428),
         (1969.803955078125, -5128.73876953125, 1632.77880859375)),
        ((0.1529948115348816, -0.13529130816459656, 0.7646096348762512, -0.6112781167030334),
         (-1769.596435546875, 5185.361328125, 1476.993408203125)),
        ((0.5916101336479187, -0.7804774045944214, 0.12832270562648773, -0.1561593860387802),
         (-1721.668701171875, -3884.13134765625, 1540.4879150390625)),
    ),
    'S7': (
        ((0.1435241848230362, -0.1631336808204651, -0.7548328638076782, 0.6188824772834778),
         (1974.512939453125, 4926.3544921875, 1597.8326416015625)),
        ((0.6141672730445862, -0.7638262510299683, -0.1596645563840866, 0.1177929937839508),
         (1937.0584716796875, -5119.7900390625, 1631.5665283203125)),
        ((0.14550060033798218, -0.12874816358089447, 0.7660516500473022, -0.6127139329910278),
         (-1741.8111572265625, 5208.24951171875, 1464.8245849609375)),
        ((0.5912848114967346, -0.7821764349937439, 0.12445473670959473, -0.15196487307548523),
         (-1734.7105712890625, -3832.42138671875, 1548.5830078125)),
    ),
    'S8': (
        ((0.14110587537288666, -0.15589867532253265, -0.7561917304992676, 0.619644045829773),
         (2150.65185546875, 4896.1611328125, 1611.9046630859375)),
        ((0.6169601678848267, -0.7647668123245239, -0.14846350252628326, 0.11158157885074615),
         (2219.965576171875, -5148.453125, 1613.0440673828125)),
        ((0.1471444070339203, -0.13377119600772858, 0.7670128345489502, -0.6100369691848755),
         (-1571.2215576171875, 5137.0185546875, 1498.1761474609375)),
        ((0.5927824378013611, -0.7825870513916016, 0.12147816270589828, -0.14631995558738708),
         (-1476.913330078125, -3896.7412109375, 1547.97216796875)),
    ),
    'S9': (
        ((0.15540587902069092, -0.15548215806484222, -0.7532095313072205, 0.6199594736099243),
         (2044.45849609375, 4935.1171875, 1481.2275390625)),
        ((0.618784487247467, -0.7634735107421875, -0.14132238924503326, 0.11933968216180801),
         (1990.959716796875, -5123.810546875, 1568.8048095703125)),
        ((0.13357827067375183, -0.1367100477218628, 0.7689454555511475, -0.6100738644599915),
         (-1670.9921875, 5211.98583984375, 1528.387939453125)),
        ((0.5879399180412292, -0.7823407053947449, 0.1427614390850067, -0.14794869720935822),
         (-1696.04345703125, -3827.099853515625, 1591.4127197265625)),
    ),
    'S11': (
        ((0.15232472121715546, -0.15442320704460144, -0.7547563314437866, 0.6191070079803467),
         (2098.440185546875, 4926.5546875, 1500.278564453125)),
        ((0.6189449429512024, -0.7600917220115662, -0.15300633013248444, 0.1255258321762085),
         (2083.182373046875, -4912.1728515625, 1561.07861328125)),
        ((0.14943228662014008, -0.15650227665901184, 0.7681233882904053, -0.6026304364204407),
         (-1609.8153076171875, 5177.3359375, 1537.896728515625)),
        ((0.5894251465797424, -0.7818877100944519, 0.13991211354732513, -0.14715361595153809),
         (-1590.738037109375, -3854.1689453125, 1578.017578125)),
    ),
}
# fmt: on


def human36m_cameras(subject: str) -> tuple[Camera, ...]:
    """Human3.6M's four cameras for a subject: S1, S5 to S9 or S11.

    Raises:
        ItesError: the subject has no published calibration.
    """
    if subject not in _EXTRINSICS:
        raise ItesError(
            f"human36m_cameras: subject must be one of {', '.join(_EXTRINSICS)}, got {subject!r}"
        )
    return tuple(
        Camera(
            id=name,
            focal_length=focal,
            center=center,
            radial=radial,
            tangential=tangential,
            orientation=orientation,
            translation=(x / 1000, y / 1000, z / 1000),
            width=width,
            height=height,
        )
        for (name, focal, center, radial, tangential, width, height), (
            orientation,
            (x, y, z),
        ) in zip(_INTRINSICS, _EXTRINSICS[subject], strict=True)
    )
