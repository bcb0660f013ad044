"""What the phases of training read: frames for the tokenizer, cached latents for forecast and transformer."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.camera import MOTION_DIM, scaled_motion
from worldsim.data import Dataset, Windows, abrupt_change, event_weights
from worldsim.errors import DatasetError
from worldsim.files import write_text
from worldsim.spaces import action_dim, action_vectors
from worldsim.tokenizer import Tokenizer, VitTokenizer
from worldsim.training.batches import LatentBatch
from worldsim.training.config import TrainConfig
from worldsim.training.phase import autocast
from worldsim.video import to_model

LATENTS = "latents.npy"


def split_episodes(dataset: Dataset, held_out: float, limit: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Episode numbers for training, at most `limit` if it is not 0, and, from the end, held out.

    Raises:
        DatasetError: If either would be empty.
    """
    count = round(len(dataset) * held_out) if held_out > 0 else 0
    count = max(count, 1)
    if len(dataset) - count < 1:
        raise DatasetError(
            expected="at least two episodes, one of them held out", got=len(dataset), remedy="Record more episodes."
        )
    order = np.arange(len(dataset))
    return order[:-count][: limit or None], order[-count:]


class FrameSource:
    """Batches of frames for the tokenizer."""

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        stride = config.tokenizer.temporal_stride
        train, held = split_episodes(dataset, config.held_out, config.episodes)
        # One latent needs one frame, or a group of four beside the lone first one.
        length = 1 if stride == 1 else 1 + stride
        batch = config.tokenizer_optimiser.batch_size
        self._train = Windows(dataset, length, batch_size=batch, seed=config.seed, episodes=train)
        held_windows = Windows(dataset, length, batch_size=64, seed=config.seed, episodes=held, memory_gib=0.0)
        self._held = held_windows.batch(0)["frames"]

    @property
    def num_windows(self) -> int:
        """Number of different windows to train on."""
        return self._train.num_windows

    def batch(self, step: int, device: torch.device, rows: range | None = None) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1] of update `step`, or some rows of it."""
        return to_model(self._train.batch(step, rows_slice(rows))["frames"], device)

    def describe(self, step: int, rows: range | None = None) -> str:
        """Which frames the batch of update `step` holds, or some rows of it."""
        return describe_windows(self._train.batch(step, rows_slice(rows)), self._train.dataset)

    def held_out(self, device: torch.device) -> Tensor:
        """The same frames every time, from held-out episodes."""
        return to_model(self._held, device)


class LatentSource:
    """Batches of latent windows for the transformer, from latents cached on disk.

    Args:
        dataset: The dataset.
        latents: (frames, C, h, w) float16, from `cached_latents`.
        config: The run, as for this dataset (`TrainConfig.of_dataset`).
        reward_scale: Rewards are given in units of this.
        camera_range: The largest motions of the camera, which tell its units (`worldsim.camera.scaled_motion`); None to
            leave motions out.
    """

    def __init__(
        self,
        dataset: Dataset,
        latents: np.ndarray,
        config: TrainConfig,
        reward_scale: float,
        camera_range: tuple[float, ...] | None = None,
    ) -> None:
        self.dataset, self.latents, self.reward_scale = dataset, latents, reward_scale
        self.camera_range = camera_range
        self.stride = config.tokenizer.temporal_stride
        self.length = window_frames(config)
        train, self.held_out_episodes = split_episodes(dataset, config.held_out, config.episodes)
        size = config.optimiser.batch_size
        self._train = Windows(
            dataset,
            self.length,
            batch_size=size,
            seed=config.seed + 1,
            weights=window_weights(dataset, latents, config.dynamics.events),
            episodes=train,
            frames=False,
        )
        held = self.held_out_episodes
        self._held = Windows(dataset, self.length, batch_size=32, seed=config.seed, episodes=held, frames=False)

    @property
    def num_windows(self) -> int:
        """Number of different windows to train on."""
        return self._train.num_windows

    def batch(self, step: int, device: torch.device, rows: range | None = None) -> LatentBatch:
        """The windows of update `step`, or some rows of them."""
        return self._convert(self._train.batch(step, rows_slice(rows)), device)

    def describe(self, step: int, rows: range | None = None) -> str:
        """Which windows the batch of update `step` holds, or some rows of it."""
        return describe_windows(self._train.batch(step, rows_slice(rows)), self.dataset)

    def held_out(self, index: int, device: torch.device) -> LatentBatch:
        """Windows of held-out episodes; the same for the same index."""
        return self._convert(self._held.batch(index), device)

    def _convert(self, raw: dict, device: torch.device) -> LatentBatch:
        first = self.dataset.starts[raw["episode"]] + raw["start"]
        rows = first[:, None] + np.arange(0, self.length, self.stride)
        latents = torch.from_numpy(self.latents[rows].astype(np.float32)).to(device)
        b, f = rows.shape
        # Per latent frame: the actions of its group, and what they led to; nothing is known of the first frame.
        actions = torch.zeros(b, f, action_dim(self.dataset.action_space) * self.stride)
        vectors = action_vectors(self.dataset.action_space, raw["actions"], 2)
        actions[:, 1:] = torch.from_numpy(vectors).reshape(b, f - 1, -1)
        rewards, ended = torch.zeros(b, f), torch.zeros(b, f, dtype=torch.bool)
        rewards[:, 1:] = torch.from_numpy(raw["rewards"]).reshape(b, f - 1, -1).sum(-1) / self.reward_scale
        ended[:, 1:] = torch.from_numpy(raw["terminated"]).reshape(b, f - 1, -1).any(-1)
        known = torch.ones(b, f, dtype=torch.bool)
        known[:, 0] = False
        return LatentBatch(
            latents=latents,
            actions=actions.to(device),
            rewards=rewards.to(device),
            terminated=ended.to(device),
            known=known.to(device),
            texts=[c or None for c in raw["captions"]],
            camera=self._motions(raw, b, f).to(device) if self.camera_range and self.dataset.has_camera else None,
        )

    def _motions(self, raw: dict, b: int, f: int) -> Tensor:
        """The camera's motion to each latent frame, of all frames of its group together: (B, F, 6 * stride)."""
        assert self.camera_range is not None
        scaled = torch.from_numpy(scaled_motion(raw["camera"], self.camera_range))
        motions = torch.zeros(b, f, MOTION_DIM * self.stride)
        motions[:, 1:] = scaled.reshape(b, f - 1, -1)
        return motions


def window_weights(dataset: Dataset, latents: np.ndarray, events: float) -> np.ndarray | None:
    """Weights of frames that make windows rich in events likelier, (frames,); None draws all windows alike.

    Raises:
        ConfigError: If the share of events is out of range.
    """
    return event_weights(dataset, share=events, change=abrupt_change(dataset, latents)) if events else None


@torch.no_grad()
def cached_latents(
    dataset: Dataset, tokenizer: Tokenizer, folder: Path, config: TrainConfig, name: str = LATENTS
) -> np.ndarray:
    """Latents of every frame, (frames, C, h, w) float16, computed once and kept in `folder` as `name`.

    With temporal stride 4, row i holds the latent of frames i - 3 to i (repeating an episode's first frame before its
    start), so that a window may begin anywhere.

    Raises:
        TrainingError: If the cache on disk does not belong to this dataset and tokenizer.
    """
    device = next(tokenizer.parameters()).device
    key = {"data": dataset.digest(), "tokenizer": _weights_hash(tokenizer)}
    file, about = folder / name, (folder / name).with_suffix(".json")
    if file.exists() and about.exists() and about.read_text() == json.dumps(key):
        return np.load(file, mmap_mode="r")
    height, width = dataset.frame_size
    stride = config.tokenizer.spatial_stride
    shape = (dataset.num_frames, config.tokenizer.latent_channels, height // stride, width // stride)
    work = folder / f".{name}.tmp"
    out = np.lib.format.open_memmap(work, mode="w+", dtype=np.float16, shape=shape)
    try:
        with work.open("r+b") as stream:
            # A full disk is an error now; met while writing through the map it would kill the process.
            os.posix_fallocate(stream.fileno(), 0, work.stat().st_size)
    except OSError:
        work.unlink()  # what it took of the disk is needed
        raise
    for start, length in zip(dataset.starts, dataset.lengths, strict=True):
        frames = dataset.read("frames", int(start), int(start + length))
        with autocast(device, config.precision):
            out[start : start + length] = _encode_everywhere(tokenizer, frames, device)
    out.flush()
    del out
    work.replace(file)
    write_text(about, json.dumps(key))
    return np.load(file, mmap_mode="r")


def window_frames(config: TrainConfig) -> int:
    """Frames of a window, from its latent frames."""
    return 1 + (config.dynamics.length - 1) * config.tokenizer.temporal_stride


def latents_file(index: int) -> str:
    """Where the latents of a run's dataset of that number are kept."""
    return f"latents-{index + 1}.npy" if index else LATENTS


def rows_slice(rows: range | None) -> slice:
    """Those rows, or with None all."""
    return slice(None) if rows is None else slice(rows.start, rows.stop)


def describe_windows(raw: Mapping[str, Any], dataset: Dataset) -> str:
    """Which windows those are that `Windows` drew."""
    places = ", ".join(f"{e}:{s}" for e, s in zip(raw["episode"], raw["start"], strict=True))
    return f"the windows (episode:first frame) {places} of {dataset.path}"


def _encode_everywhere(tokenizer: Tokenizer, frames: np.ndarray, device: torch.device) -> np.ndarray:
    rows = []
    if isinstance(tokenizer, VitTokenizer):
        for begin in range(0, len(frames), 256):
            batch = to_model(frames[begin : begin + 256], device)[:, None]
            rows.append(tokenizer.encode(batch)[:, 0].float().cpu().numpy())
        return np.concatenate(rows).astype(np.float16)
    stride = tokenizer.config.temporal_stride
    padded = np.concatenate((np.repeat(frames[:1], stride - 1, axis=0), frames)) if stride > 1 else frames
    for begin in range(0, len(frames), 256):
        index = np.arange(begin, min(begin + 256, len(frames)))[:, None] + np.arange(stride)
        groups = to_model(padded[index], device).flatten(1, 2)[:, None]
        rows.append(tokenizer.standardise(tokenizer.encoder(groups.flatten(0, 1))[:, None])[:, 0].float().cpu().numpy())
    return np.concatenate(rows).astype(np.float16)


def _weights_hash(tokenizer: Tokenizer) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]
