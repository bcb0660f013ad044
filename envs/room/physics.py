"""Rigid-body physics of a room in MuJoCo: solids on the floor, and a walker that collides and pushes.

The walker is an upright cylinder on two slides. A force-limited velocity servo drives it, and its velocity is set at
the start of every frame, so that unobstructed it covers the commanded distance exactly, and obstructed it pushes with
at most `WALKER_FORCE_N`. Heading and elevation of its gaze are kinematic.

MuJoCo steps velocities first, then positions with the new velocities: a falling body runs ahead by g·dt²/2 a step. This
is taken back at the end of the frame for the steps in which nothing touched the body, so that free flight is exact.
"""

import numpy as np

from envs.room.engine import mj
from envs.room.scene import FRAME_S, WALKER_HEIGHT_M, WALKER_RADIUS_M, Scene, Solid
from envs.room.touches import FLOOR, WALL, Touches

SUBSTEPS = 16
WALKER_MASS_KG = 70.0
WALKER_FORCE_N = 400.0
_STATE = mj.mjtState.mjSTATE_INTEGRATION


class World:
    """A scene in motion.

    Args:
        scene: What is in the room.
        num_slots: Slots of the truth arrays (walker and solids).
    """

    def __init__(self, scene: Scene, num_slots: int) -> None:
        self.scene, self.num_slots = scene, num_slots
        self.model = mj.MjModel.from_xml_string(_mjcf(scene))
        self.data = mj.MjData(self.model)
        self.slots = np.arange(1, len(scene.solids) + 1)
        # Geoms in order of the MJCF: five planes and a ceiling, the walker, the solids.
        self.slot_of_geom = np.array([FLOOR] + [WALL] * 5 + [0] + list(self.slots))
        self._touches = Touches(self.slot_of_geom, num_slots)
        self._masses = np.zeros(num_slots)
        self._masses[: 1 + len(self.slots)] = self.model.body_mass[1:]
        self._still = np.tile(np.eye(4), (num_slots, 1, 1))
        for slot, solid in enumerate(scene.solids, start=1):
            self._set_motion(slot, solid)
        self.data.qpos[:2] = scene.start_m
        mj.mj_forward(self.model, self.data)
        self.contacts = self._touches.table(0.0)

    def shift_solid(self, slot: int, offset_m: np.ndarray) -> None:
        """Moves a solid by (3,) without letting time pass; drawing follows at once."""
        position = 2 + 7 * (slot - 1)
        self.data.qpos[position : position + 3] += offset_m
        mj.mj_kinematics(self.model, self.data)

    def _set_motion(self, slot: int, solid: Solid) -> None:
        position, velocity = 2 + 7 * (slot - 1), 2 + 6 * (slot - 1)
        self.data.qpos[position : position + 3] = solid.position_m
        self.data.qpos[position + 3 : position + 7] = solid.quaternion
        self.data.qvel[velocity : velocity + 3] = solid.velocity_m_per_s
        # MuJoCo's free joint keeps angular velocity in the body's own axes.
        local = np.zeros(3)
        inverse = np.array(solid.quaternion) * (1.0, -1.0, -1.0, -1.0)
        mj.mju_rotVecQuat(local, np.array(solid.angular_velocity_rad_per_s, float), inverse)
        self.data.qvel[velocity + 3 : velocity + 6] = local

    def step(self, walker_velocity_m_per_s: np.ndarray) -> None:
        """Advances by one frame with the walker driven at a velocity (2,)."""
        model, data = self.model, self.data
        data.ctrl[:] = walker_velocity_m_per_s
        data.qvel[:2] = walker_velocity_m_per_s
        touches = self._touches
        touches.clear()
        for _ in range(SUBSTEPS):
            mj.mj_step(model, data)
            touches.look(data)
        touches.gather()
        dt = FRAME_S / SUBSTEPS
        ahead = np.multiply.outer(touches.free()[self.slots], 0.5 * dt**2 * model.opt.gravity)
        data.qpos[2:].reshape(-1, 7)[:, :3] -= ahead
        # A step leaves poses where they were before its integration.
        mj.mj_kinematics(model, data)
        self.contacts = touches.table(dt)

    def get_state(self) -> np.ndarray:
        """The full integration state of MuJoCo; `set_state` restores it bit for bit."""
        state = np.empty(mj.mj_stateSize(self.model, _STATE))
        mj.mj_getState(self.model, self.data, state, _STATE)
        return np.concatenate([state, self.contacts.ravel()])

    def set_state(self, state: np.ndarray) -> None:
        """Restores a state of `get_state` (of a scene with as many solids)."""
        size = mj.mj_stateSize(self.model, _STATE)
        mj.mj_setState(self.model, self.data, np.ascontiguousarray(state[:size]), _STATE)
        self.contacts = state[size:].reshape(self.contacts.shape).copy()
        mj.mj_kinematics(self.model, self.data)

    @property
    def walker_xy_m(self) -> np.ndarray:
        """(2,) position of the walker."""
        return self.data.qpos[:2].copy()

    def poses(self) -> np.ndarray:
        """(N, 4, 4) world_from_object; identity for empty slots. Slot 0, the walker, does not turn here."""
        poses = self._still.copy()
        count = len(self.slots) + 1
        poses[:count, :3, :3] = self.data.xmat[1 : 1 + count].reshape(-1, 3, 3)
        poses[:count, :3, 3] = self.data.xpos[1 : 1 + count]
        return poses

    def velocities(self) -> np.ndarray:
        """(N, 6) linear and angular velocity in the world frame; zero for empty slots."""
        result = np.zeros((self.num_slots, 6))
        result[0, :2] = self.data.qvel[:2]
        count = len(self.slots)
        if count:
            speeds = self.data.qvel[2:].reshape(count, 6)
            rotation = self.data.xmat[2 : 2 + count].reshape(-1, 3, 3)
            result[1 : 1 + count, :3] = speeds[:, :3]
            result[1 : 1 + count, 3:] = np.einsum("nij,nj->ni", rotation, speeds[:, 3:])
        return result

    def masses(self) -> np.ndarray:
        """(N,) masses in kg; zero for empty slots."""
        return self._masses.copy()

    def position_m(self, slot: int) -> np.ndarray:
        """(3,) position of one body."""
        return self.data.xpos[1 + slot].copy()


def _mjcf(scene: Scene) -> str:
    """The scene as an MJCF document."""
    length, width, height = scene.room_m
    planes = (
        (0, 0, 0, "0 0 1"),
        (-length / 2, 0, 0, "1 0 0"),
        (length / 2, 0, 0, "-1 0 0"),
        (0, -width / 2, 0, "0 1 0"),
        (0, width / 2, 0, "0 -1 0"),
        (0, 0, height, "0 0 -1"),
    )
    walls = "".join(
        f'<geom type="plane" size="0 0 1" pos="{x!r} {y!r} {z!r}" zaxis="{axis}" conaffinity="{1 if k == 0 else 3}"/>'
        for k, (x, y, z, axis) in enumerate(planes)
    )
    gravity = " ".join(repr(float(g)) for g in scene.gravity_m_per_s2)
    return f"""<mujoco>
<option timestep="{FRAME_S / SUBSTEPS!r}" integrator="Euler" cone="elliptic" gravity="{gravity}"/>
<default><geom condim="3" friction="0.5 0.02 0.006" solref="0.02 0.6"/></default>
<worldbody>{walls}
<body pos="0 0 {WALKER_HEIGHT_M / 2}"><joint name="slide0" type="slide" axis="1 0 0"/>
<joint name="slide1" type="slide" axis="0 1 0"/>
<geom type="cylinder" size="{WALKER_RADIUS_M} {WALKER_HEIGHT_M / 2}" mass="{WALKER_MASS_KG}" contype="2"
 conaffinity="0" condim="3" friction="0.1 0 0" priority="1"/></body>
{"".join(_body(solid) for solid in scene.solids)}</worldbody>
<actuator>{"".join(_servo(joint) for joint in (0, 1))}</actuator>
</mujoco>"""


def _servo(joint: int) -> str:
    # A gain of mass over time step makes up for a difference in speed within one step, as far as the force allows.
    gain = WALKER_MASS_KG * SUBSTEPS / FRAME_S
    return f'<velocity joint="slide{joint}" kv="{gain!r}" forcerange="-{WALKER_FORCE_N} {WALKER_FORCE_N}"/>'


def _body(solid: Solid) -> str:
    size = " ".join(repr(float(v)) for v in solid.size_m)
    # A box does not roll, and its four contacts resist twisting by themselves.
    condim = 3 if solid.shape == "box" else 6
    return (
        f'<body><freejoint/><geom type="{solid.shape}" size="{size}" density="{solid.density_kg_per_m3!r}" '
        f'condim="{condim}" group="1" contype="1" conaffinity="3"/></body>'
    )
