"""`envs:Room-v0`: a camera walks among coloured solids in a textured room; the truth of every frame is known."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from envs.captions import Detail, check_detail
from envs.errors import ActionError, SceneError, UnknownNameError, checked_options
from envs.room.camera import world_from_camera
from envs.room.captions import caption
from envs.room.casting import Stage
from envs.room.moves import ACTIONS, MOVES, TURN_RAD, displacement_m, turned
from envs.room.paths import PATHS, script
from envs.room.physics import World
from envs.room.rendering import Picture, Renderer
from envs.room.sampling import Factors, sample_room, sample_scene
from envs.room.scene import EYE_HEIGHT_M, FRAME_S, WALKER_RADIUS_M, Scene
from envs.room.staging import stage_of

REACH_M = 0.35
"""The task is done when the gap between the walker and the named solid is at most this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RoomState:
    """Everything that decides the future of an episode; a value, picklable, restored by `RoomEnv.set_state`.

    Attributes:
        scene: What the room was built from.
        physics: MuJoCo's integration state and the contacts of the last frame.
        yaw_rad, pitch_rad: The gaze.
        turn_rad_per_s: Rate of turn during the last frame.
        num_steps: Steps taken.
        arrived: Whether the named solid has been reached.
        caption: The caption of the episode.
        script: The scripted actions, or None.
    """

    scene: Scene
    physics: np.ndarray
    yaw_rad: float
    pitch_rad: float
    turn_rad_per_s: float
    num_steps: int
    arrived: bool
    caption: str
    script: np.ndarray | None


class RoomEnv(gym.Env[np.ndarray, Any]):
    """A room with boxes, spheres, cylinders, capsules and ellipsoids, seen by a walking camera at 10 frames a second.

    Observation: uint8 (H, W, 3). The caption in `info["caption"]` describes the room and names the solid to walk to.

    Actions, discrete: the index into `ACTIONS`; a step is 0.15 m, a turn 7.5 degrees. Continuous: (4,) in [-1, 1]:
    forward, left, turn left, look up, in the same units. The walker moves along its heading, then turns. Elevation
    stays within 45 degrees. Walls stop it; it pushes solids with at most 400 N.

    With a camera path, the scene leaves a scripted path (`envs.room.paths.PATHS`) free, the walker starts on it, and
    `info["scripted_action"]` is the action that follows it (`envs.room.policies.follow_path` returns it).

    Reward: metres gained towards the named solid, plus 1 when the gap to it first is at most 0.35 m: the walker has
    arrived. Without a task the reward is 0. Episodes are truncated after `episode_frames` actions.

    Truth: the keys of docs/architecture.md. Slot 0 is the walker (never visible; its `world_from_object` has the
    heading as x axis, its `position_m` is that of its body, the camera is `EYE_HEIGHT_M` above the floor). Columns of
    `contacts`: `envs.room.touches.CONTACT_COLUMNS`, one row for each pair that touched during the frame; `slot_b` is
    -1 for the floor and -2 for walls and ceiling, the normal points from `slot_a` into `slot_b`, the impulse is summed
    over the frame.

    Args:
        size: Height and width of frames in pixels.
        continuous: Continuous actions instead of discrete ones.
        slots: N, the number of object slots in the truth; slot 0 is the walker.
        task: Whether a solid is to be walked to.
        terminate: Whether arriving ends the episode; by default it goes on, which suits learning from rollouts.
        episode_frames: Actions until truncation.
        camera_path: Name of a camera path, or None.
        detail: Of the caption: "short", "medium" or "dense".
        fov_deg: Field of view along the shorter side of the frame.
        antialias: Average edge pixels over 2x2 samples.
        factors: Factors of variation to start from (`envs.room.sampling.Factors`), by name.
        render_mode: Only "rgb_array" or None.

    Raises:
        SceneError: If an argument is out of range.
        UnknownNameError: If a factor, path or detail is unknown.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": round(1 / FRAME_S)}  # noqa: RUF012 - instance variable in gym.Env

    def __init__(
        self,
        size: tuple[int, int] = (64, 64),
        *,
        continuous: bool = False,
        slots: int = 7,
        task: bool = True,
        terminate: bool = False,
        episode_frames: int = 200,
        camera_path: str | None = None,
        detail: str = "short",
        fov_deg: float = 70.0,
        antialias: bool = True,
        factors: Mapping[str, Any] | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if slots < 2 or episode_frames < 1:
            raise SceneError(
                expected="at least 2 slots and 1 episode frame",
                got=(slots, episode_frames),
                remedy="Leave them at their defaults.",
            )
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnknownNameError(kind="render mode", name=str(render_mode), known=self.metadata["render_modes"])
        self.renderer = Renderer(size, fov_deg, antialias=antialias)
        self.slots, self.episode_frames, self.continuous = slots, episode_frames, continuous
        self.task, self.terminate, self.camera_path = task, terminate, camera_path
        self.detail: Detail = check_detail(detail)
        if camera_path is not None and camera_path not in PATHS:
            raise UnknownNameError(kind="camera path", name=str(camera_path), known=PATHS)
        default = Factors(num_objects=(min(3, slots - 1), min(6, slots - 1)))
        self.factors = default.updated(factors or {})
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 255, (*self.renderer.size, 3), np.uint8)
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (4,), np.float32) if continuous else gym.spaces.Discrete(len(ACTIONS))
        )
        self._world: World | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Seed of the scene.
            options: Factors of variation by name (see `Factors`); `camera_path`: for this episode;
                or `scene`, alone: a `Scene` to use as it is.

        Raises:
            SceneError: If the scene is impossible, has more solids than slots, or is given beside other options.
            UnknownNameError: If an option is unknown.
        """
        super().reset(seed=seed)
        options = checked_options(options)
        scene = options.pop("scene", None)
        if scene is not None and (options or not isinstance(scene, Scene)):
            raise SceneError(
                expected="a Scene, alone",
                got=f"{type(scene).__name__} and {sorted(options)}",
                remedy="Put the other factors into the scene.",
            )
        path = options.pop("camera_path", self.camera_path)
        factors, self._script = self.factors.updated(options), None
        if scene is None:
            room_m = sample_room(self.np_random, factors)
            drawn = None if path is None else script(path, room_m, self.np_random, self.episode_frames)
            scene = sample_scene(self.np_random, factors, room_m, drawn)
            self._script = None if drawn is None else drawn.actions
        self._start(scene)
        self._caption = caption(scene, task=self.task, detail=self.detail, rng=copy.deepcopy(self.np_random))
        return self._observe()

    def _start(self, scene: Scene) -> None:
        if len(scene.solids) >= self.slots:
            raise SceneError(
                expected=f"at most {self.slots - 1} solids",
                got=len(scene.solids),
                remedy="Make the environment with more slots.",
            )
        self._world = World(scene, self.slots)
        self._stage = stage_of(self._world)
        self._yaw, self._pitch, self._turn_rate, self._num_steps = scene.yaw_rad, scene.pitch_rad, 0.0, 0
        self._arrived = False

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Advances by one frame of 0.1 s.

        Raises:
            ActionError: If the action is outside the space or not finite.
        """
        move, world, before = self._move(action), self.world, self.target_gap_m
        world.step(displacement_m(move, self._yaw) / FRAME_S)
        self._yaw, self._pitch = turned(move, self._yaw, self._pitch)
        self._turn_rate = move[2] * TURN_RAD / FRAME_S
        self._num_steps += 1
        observation, info = self._observe()
        reward, reached = 0.0, False
        gap = self.target_gap_m
        if before is not None and gap is not None:
            reached = gap <= REACH_M and not self._arrived
            self._arrived |= reached
            reward = before - gap + float(reached)
        return observation, reward, self.terminate and reached, self._num_steps >= self.episode_frames, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The current frame, uint8 (H, W, 3), or None without a render mode."""
        _ = self.world  # which refuses before the first reset
        return self.picture().rgb if self.render_mode == "rgb_array" else None

    def picture(self) -> Picture:
        """The current frame with its depth, segmentation and normals."""
        pose = self.camera_pose  # which refuses before the first reset
        return self.renderer.render(self._stage, pose)

    @property
    def world(self) -> World:
        """The physics of the running episode.

        Raises:
            gym.error.ResetNeeded: Before the first reset.
        """
        if self._world is None:
            raise gym.error.ResetNeeded("Call reset() first.")
        return self._world

    @property
    def camera_pose(self) -> np.ndarray:
        """(4, 4) world_from_camera of the current frame."""
        return world_from_camera(np.array([*self.world.walker_xy_m, EYE_HEIGHT_M]), self._yaw, self._pitch)

    @property
    def target_gap_m(self) -> float | None:
        """Distance over the floor between the walker's surface and the target's bounding sphere, or None."""
        target = self.world.scene.target if self.task else None
        if target is None:
            return None
        x, y = (self.world.position_m(target)[:2] - self.world.walker_xy_m).tolist()
        return math.hypot(x, y) - self.world.scene.solids[target - 1].radius_m - WALKER_RADIUS_M

    def get_state(self) -> RoomState:
        """The state of the episode, as a value."""
        world = self.world
        return RoomState(
            scene=world.scene,
            physics=world.get_state(),
            yaw_rad=self._yaw,
            pitch_rad=self._pitch,
            turn_rad_per_s=self._turn_rate,
            num_steps=self._num_steps,
            arrived=self._arrived,
            caption=self._caption,
            script=self._script,
        )

    def set_state(self, state: RoomState) -> tuple[np.ndarray, dict[str, Any]]:
        """Restores a state, also one of another environment; returns observation and info as `reset` does.

        For a counterfactual, replace `state.scene` by one with another mass or gravity.

        Raises:
            SceneError: If it is no state, or its scene has more solids than slots.
        """
        if not isinstance(state, RoomState):
            raise SceneError(expected="a RoomState", got=type(state).__name__, remedy="Pass what get_state gave.")
        self.restore(state)
        self._yaw, self._pitch, self._turn_rate = state.yaw_rad, state.pitch_rad, state.turn_rad_per_s
        self._num_steps, self._arrived = state.num_steps, state.arrived
        self._caption, self._script = state.caption, state.script
        return self._observe()

    def restore(self, state: RoomState) -> Stage:
        """Puts the world, not yet the gaze, into a state without drawing it; returns what there is to draw."""
        if self._world is None or state.scene != self._world.scene:
            self._start(state.scene)
        self.world.set_state(state.physics)
        return self._stage

    def _move(self, action: Any) -> np.ndarray:  # noqa: ANN401
        # Gymnasium's spaces take True for the number 1.
        if isinstance(action, bool) or not self.action_space.contains(action):
            # Plain Python and other float types that hold a valid action are welcome, as Gymnasium's own worlds do.
            try:
                array = np.asarray(action)
            except (ValueError, TypeError):  # lists of unequal length
                array = np.empty(0)
            if self.continuous and array.dtype.kind in "fiu" and array.shape == (4,) and (np.abs(array) <= 1.0).all():
                return array.astype(float)
            raise ActionError(
                expected=f"an action in {self.action_space}",
                got=repr(action),
                remedy="Actions are finite and inside the action space; see envs.room.moves.ACTIONS.",
            )
        return np.asarray(action, float) if self.continuous else MOVES[int(action)]

    def _observe(self) -> tuple[np.ndarray, dict[str, Any]]:
        world, camera = self.world, self.camera_pose
        picture = self.renderer.render(self._stage, camera)
        poses, velocity = world.poses(), world.velocities()
        cos, sin = np.cos(self._yaw), np.sin(self._yaw)
        poses[0, :2, :2] = [[cos, -sin], [sin, cos]]
        velocity[0, 5] = self._turn_rate
        present = np.arange(self.slots) <= len(world.scene.solids)
        truth = {
            "present": present,
            "segmentation": picture.segmentation,
            "depth_m": picture.depth_m,
            "normals": picture.normals,
            "world_from_camera": camera,
            "K": self.renderer.K.copy(),
            "world_from_object": poses,
            "object_velocity": velocity,
            "position_m": poses[:, :3, 3].copy(),
            "velocity_m_per_s": velocity[:, :3].copy(),
            "mass_kg": world.masses(),
            "contacts": world.contacts.copy(),
        }
        info: dict[str, Any] = {"caption": self._caption, "truth": truth, "target": world.scene.target or 0}
        if self._script is not None:
            action = int(self._script[self._num_steps % len(self._script)])
            info["scripted_action"] = MOVES[action].astype(np.float32) if self.continuous else np.int64(action)
        return picture.rgb, info
