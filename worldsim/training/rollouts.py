"""How well a world in training dreams: rollouts with the true actions on held-out episodes.

A few frames are given, the rest is dreamt through the simulator that users get, and compared with what truly happened
and with the last given frame held.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worldsim.checkpoint import Checkpoint
from worldsim.data import Dataset, Windows
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator
from worldsim.training.config import TrainConfig
from worldsim.video import write_video

HORIZONS = (1, 4, 16)  # in steps of the simulator
_MOST_DB = 60.0  # beyond the rounding to 256 levels, 58.9 dB; frames without any error would have no finite figure
_VIDEO_PIXELS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Dreams:
    """Dreams beside the truth.

    Attributes:
        truth: uint8 (B, T, H, W, 3), the given frames first.
        dream: uint8 (B, T, H, W, 3), the same given frames, then what was dreamt.
        given: Number of given frames.
        stride: Frames of a step.
    """

    truth: np.ndarray
    dream: np.ndarray
    given: int
    stride: int

    def numbers(self) -> dict[str, float]:
        """PSNR in dB (mean over clips): `psnr_K_db` after K steps, `psnr_db` over all dreamt frames.

        `still_K_db` and `still_db` are the same for the last given frame held.
        """
        true, made = self.truth[:, self.given :], self.dream[:, self.given :]
        held = np.broadcast_to(self.truth[:, self.given - 1, None], true.shape)
        found: dict[str, float] = {}
        for name, video in (("psnr", made), ("still", held)):
            decibels = psnr(video, true)
            found |= {
                f"{name}_{k}_db": float(decibels[:, k * self.stride - 1].mean())
                for k in HORIZONS
                if k * self.stride <= decibels.shape[1]
            }
            found[f"{name}_db"] = float(decibels.mean())
        return found

    def write(self, path: Path, fps: float, clips: int) -> None:
        """Writes a video of some clips side by side, truth above, dream below; small frames are enlarged."""
        times = max(1, _VIDEO_PIXELS // self.truth.shape[2])
        shown = min(clips, len(self.truth))
        rows = [np.concatenate(list(video[:shown]), axis=2) for video in (self.truth, self.dream)]
        write_video(path, np.concatenate(rows, axis=1).repeat(times, axis=1).repeat(times, axis=2), fps)


class HeldOutClips:
    """Clips of held-out episodes, the same ones at every evaluation.

    Args:
        dataset: The dataset.
        episodes: Held-out episodes; where all are shorter than `given + horizon` steps, the horizon is shortened.
        config: The run.
    """

    def __init__(self, dataset: Dataset, episodes: np.ndarray, config: TrainConfig) -> None:
        wanted = config.evaluation
        self.stride = config.tokenizer.temporal_stride
        self.given = 1 + (wanted.given - 1) * self.stride
        longest = int(dataset.lengths[episodes].max())
        self.steps = min(wanted.horizon, (longest - self.given) // self.stride)
        self.sampling = Sampling(steps=wanted.steps)
        if self.steps > 0:
            length = self.given + self.steps * self.stride
            windows = Windows(
                dataset, length, batch_size=wanted.clips, seed=config.seed, episodes=episodes, memory_gib=0.0
            )
            self._batch = windows.batch(0)

    def dream(self, world: Checkpoint) -> Dreams:
        """Rolls the world out on every clip, given its first frames, true actions and camera motion, and caption."""
        device = world.model.patchify.weight.device
        simulator = Simulator(replace(world, meta={}), sampling=self.sampling, device=device)
        truth = self._batch["frames"]
        actions = None if world.action_space is None else self._batch["actions"]
        camera = None if world.camera_range is None else self._batch.get("camera")
        known = world.model.config.text is not None
        state, _ = simulator.reset(
            frames=truth[:, : self.given],
            actions=_each(actions, lambda a: a[:, : self.given - 1]),
            camera=_each(camera, lambda a: a[:, : self.given - 1]),
            text=[caption or None for caption in self._batch["captions"]] if known else None,
        )
        made = [truth[:, : self.given]]
        for i in range(self.steps):
            begin = self.given - 1 + i * self.stride
            now = slice(begin, begin + self.stride) if self.stride > 1 else begin
            chosen, motion = (_each(given, lambda a, now=now: a[:, now]) for given in (actions, camera))
            step = simulator.step(state, chosen, camera=motion, donate=True)
            state = step.state
            made.append(step.frames if self.stride > 1 else step.frames[:, None])
        return Dreams(truth=truth, dream=np.concatenate(made, axis=1), given=self.given, stride=self.stride)


def psnr(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 (..., H, W, 3) frames, at most 60: (...)."""
    error = np.square(frames.astype(np.float32) - truth.astype(np.float32)).mean(axis=(-3, -2, -1))
    return np.minimum(20.0 * np.log10(255.0) - 10.0 * np.log10(np.maximum(error, 1e-12)), _MOST_DB)


def _each(actions: Any, function: Callable[[np.ndarray], np.ndarray]) -> Any:  # noqa: ANN401 - actions of any space
    """The function applied to each array of stacked actions; None stays None."""
    if actions is None:
        return None
    if isinstance(actions, dict):
        return {key: _each(part, function) for key, part in actions.items()}
    if isinstance(actions, list):
        return [_each(part, function) for part in actions]
    return function(actions)
