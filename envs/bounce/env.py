"""The Gymnasium environment `envs:Bounce-v0`."""

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from envs.bounce.captions import caption
from envs.bounce.contacts import Contact
from envs.bounce.dense import parse
from envs.bounce.ranges import ranges
from envs.bounce.render import Drawing, Renderer, check_size, view_m
from envs.bounce.scenarios import EPISODE_FRAMES, SCENARIOS, make_scene
from envs.bounce.scene import FRAME_S, Scene
from envs.bounce.truth import Truth, capacity
from envs.bounce.world import World
from envs.captions import Detail, check_detail
from envs.errors import ActionError, SceneError, UnknownNameError, checked_options

ACTIONS = ("stay", "left", "right", "up", "down")
_DIRECTIONS = np.array([(0.0, 0.0), (-1.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, -1.0)])
THRUST_M_PER_S2 = 6.0
DRAG_PER_S = 1.0
REARM_FRAMES = 10
MAX_FIXTURES = 4

# What `get_state` gives.
_STATE = frozenset({"scene", "world", "gravity_m_per_s2", "frames", "last_touch", "caption", "rng"})


class BounceEnv(gym.Env[np.ndarray, np.int64]):
    """Rigid bodies in the plane, seen from the side; 10 frames a second, 10 m along the shorter side of the frame.

    Observations are frames (H, W, 3) uint8. In "billiards" slot 0 is an agent, a black disc that `Discrete(5)` actions
    push (stay, left, right, up, down: 6 m/s², against a drag of 1/s, held for one frame). The other scenarios have no
    agent and one action, 0.

    Task: +1 whenever the agent begins to touch the target that the caption names, -1 whenever it begins to touch the
    hazard. A touch counts if the two have been apart for a second, so pressing against the target scores once. With
    `terminate=True` the episode ends at the first such touch; by default it goes on, which suits learning from
    rollouts. Episodes are truncated after `episode_frames` actions.

    `info["caption"]` and `info["truth"]` follow docs/architecture.md; `envs.bounce.truth.CONTACT_COLUMNS` names the
    columns of contacts.

    Args:
        scenario: A name of `envs.bounce.scenarios.SCENARIOS`.
        size: Height and width of the frame in pixels, each at least 8.
        split: "train", or an out-of-distribution axis of `envs.bounce.ranges.splits(scenario)`.
        detail: Of the caption: "short", "medium" or "dense".
        terminate: Whether a touch ends the episode.
        episode_frames: Actions until truncation; by default that of `envs.bounce.scenarios.EPISODE_FRAMES`.
        slots: N, the number of object slots in the truth; by default what the scenario and split need.
        render_mode: "rgb_array", or None (`render` then gives None).

    Raises:
        UnknownNameError: Unknown scenario, split or detail.
        SceneError: Impossible size.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / FRAME_S)}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        scenario: str = "billiards",
        size: tuple[int, int] = (64, 64),
        *,
        split: str = "train",
        detail: str = "short",
        terminate: bool = False,
        episode_frames: int | None = None,
        slots: int | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if scenario not in SCENARIOS:
            raise UnknownNameError(kind="scenario", name=str(scenario), known=SCENARIOS)
        check_size(size)
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnknownNameError(kind="render mode", name=str(render_mode), known=self.metadata["render_modes"])
        self.scenario, self.size, self.split = scenario, (int(size[0]), int(size[1])), split
        self.detail: Detail = check_detail(detail)
        self.terminate = terminate
        self.episode_frames = EPISODE_FRAMES[scenario] if episode_frames is None else episode_frames
        self.render_mode = render_mode
        self.has_agent = scenario == "billiards"
        largest = max(ranges(scenario, split).count) + self.has_agent
        self.slots = largest if slots is None else slots
        self.observation_space = gym.spaces.Box(0, 255, (*self.size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(ACTIONS) if self.has_agent else 1)
        self._world: World | None = None

    # ------------------------------------------------------------------ Gymnasium

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Of the environment's generator.
            options: Factors of variation to fix (`envs.bounce.sampling.FACTORS`), or `{"scene": Scene}`, or
                `{"caption": str}` with a dense caption.

        Raises:
            UnknownNameError: Unknown factor.
            CaptionError: The caption cannot be parsed.
            SceneError: The scene cannot exist, has more solids than `slots`, or is given beside other options.
        """
        super().reset(seed=seed)
        options = checked_options(options)
        scene = options.pop("scene", None)
        if "caption" in options:
            scene = parse(options.pop("caption"))
        if scene is not None and (options or not isinstance(scene, Scene)):
            raise SceneError(
                expected="a Scene or a dense caption, alone",
                got=f"{type(scene).__name__} and {sorted(options)}",
                remedy="Put the other factors into the scene.",
            )
        if scene is None:
            scene = make_scene(
                self.scenario, rng=self.np_random, split=self.split, options=options, view_m=view_m(self.size)
            )
        self._begin(scene)
        return self._observe([])

    def _begin(self, scene: Scene) -> None:
        if len(scene.solids) > self.slots or scene.view_m != view_m(self.size) or scene.agent != self.has_agent:
            raise SceneError(
                expected=f"a scene of at most {self.slots} solids, {'with' if self.has_agent else 'without'} agent, "
                f"view {view_m(self.size)} m",
                got=f"{len(scene.solids)} solids, {'with' if scene.agent else 'without'} agent, view {scene.view_m} m",
                remedy="Make the environment with slots=..., and the scene for its size and scenario.",
            )
        self.scene = scene
        self._world = World(scene)
        self._renderer = Renderer(scene.solids, self.size, fixtures=scene.fixtures, rods=scene.rods)
        self._truth = Truth(scene.solids, self.slots, capacity(self.slots, 4 + MAX_FIXTURES))
        self._frames = 0
        self._last_touch: dict[str, int] = {}
        self.caption = caption(scene, detail=self.detail, rng=copy.deepcopy(self.np_random))

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advances 0.1 s.

        Raises:
            ActionError: The action is not in the action space.
        """
        world = self._started()
        index = self._checked(action)
        thrust = None
        if self.has_agent:
            thrust = np.zeros((len(self.scene.solids), 2))
            thrust[0] = THRUST_M_PER_S2 * _DIRECTIONS[index] - DRAG_PER_S * world.state.velocity_m_per_s[0]
        contacts = world.step(thrust)
        self._frames += 1
        reward = self._reward(contacts)
        frame, info = self._observe(contacts)
        return frame, reward, self.terminate and reward != 0.0, self._frames >= self.episode_frames, info

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The current frame (H, W, 3) uint8."""
        self._started()
        return self._drawing.frame.copy() if self.render_mode == "rgb_array" else None

    # ------------------------------------------------------------------ state as a value

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on: a picklable value for `set_state` of any equal environment."""
        world = self._started()
        return {
            "scene": self.scene,
            "world": world.state.copy(),
            "gravity_m_per_s2": world.gravity_m_per_s2,
            "frames": self._frames,
            "last_touch": dict(self._last_touch),
            "caption": self.caption,
            "rng": copy.deepcopy(self.np_random.bit_generator.state),
        }

    def set_state(self, state: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        """Restores a state; the same actions then give the same frames, bit for bit.

        Returns:
            The frame and the info of the restored state; its contacts are empty, as no time has passed.

        Raises:
            SceneError: It is no state, or one of another kind of environment.
        """
        if not isinstance(state, Mapping) or not state.keys() >= _STATE:
            raise SceneError(
                expected=f"a state with {', '.join(sorted(_STATE))}",
                got=sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__,
                remedy="Pass what get_state gave.",
            )
        self._begin(state["scene"])
        world = self._started()
        world.gravity_m_per_s2 = state["gravity_m_per_s2"]
        world.state = state["world"]
        self._frames, self._last_touch, self.caption = state["frames"], dict(state["last_touch"]), state["caption"]
        self.np_random.bit_generator.state = copy.deepcopy(state["rng"])
        return self._observe([])

    def __getstate__(self) -> dict[str, Any]:
        kept = {k: v for k, v in vars(self).items() if k not in ("_world", "_renderer", "_truth", "_drawing")}
        kept["_saved"] = None if self._world is None else self.get_state()
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        saved = kept.pop("_saved")
        self.__dict__.update(kept)
        self._world = None
        if saved is not None:
            self.set_state(saved)

    # ------------------------------------------------------------------ parts

    def _started(self) -> World:
        if self._world is None:
            raise gym.error.ResetNeeded("Call reset() before step(), render() or get_state().")
        return self._world

    def _checked(self, action: object) -> int:
        value = np.asarray(action)
        whole = value.ndim == 0 and value.dtype.kind in "iu"
        if not whole or not 0 <= int(value) < self.action_space.n:  # pyright: ignore[reportAttributeAccessIssue]
            raise ActionError(
                expected=f"a whole number in {self.action_space}",
                got=repr(action),
                remedy=f"Actions: {dict(enumerate(ACTIONS)) if self.has_agent else {0: 'stay'}}.",
            )
        return int(value)

    def _reward(self, contacts: list[Contact]) -> float:
        reward = 0.0
        roles = {"target": 1.0, "hazard": -1.0}
        for contact in contacts:
            role = self.scene.solids[contact.b].role if contact.a == 0 and contact.b >= 0 and self.has_agent else ""
            if role in roles:
                if self._frames - self._last_touch.get(role, -REARM_FRAMES - 1) > REARM_FRAMES:
                    reward += roles[role]
                self._last_touch[role] = self._frames
        return reward

    def _observe(self, contacts: list[Contact]) -> tuple[np.ndarray, dict[str, Any]]:
        world = self._started()
        state = world.state
        self._drawing: Drawing = self._renderer.draw(state.position_m, state.angle_rad)
        info = {"caption": self.caption, "truth": self._truth(state, self._drawing, contacts, world.gravity_m_per_s2)}
        return self._drawing.frame.copy(), info
