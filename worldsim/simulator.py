"""Simulator and State: a learned world that is stepped, branched and saved.

A step denoises the next frame against the cached past, passes the clean result once to extend the cache (reward and
termination are read there), and decodes it. The state is a value: stepping returns a new one and leaves the old valid.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldsim.checkpoint import Checkpoint, load_checkpoint
from worldsim.config import Config
from worldsim.errors import ActionError, ConfigError, FramesError, StateError, TextError
from worldsim.nn.cache import RingCache
from worldsim.noise import clean_from_prediction, mix
from worldsim.sampler import Method, level_grid, sample
from worldsim.spaces import action_vectors
from worldsim.state import State, frame_noise
from worldsim.tokenizer import check_frame_size, num_latents
from worldsim.transformer import Conditions, causal_mask
from worldsim.video import from_model, to_model


@dataclass(frozen=True, kw_only=True)
class Sampling(Config):
    """How frames are denoised.

    Attributes:
        steps: Denoising steps a frame.
        method: First-order "euler" (DDIM on a variance-preserving path) or second-order "heun".
        text_guidance: Weight of classifier-free guidance by the text (Ho & Salimans 2022); 1 is none.
        action_guidance: The same for actions.
        damping: Factor on every denoising update; slightly below 1 counters drift.
        context_level: The noise level that the network is told of past frames.
        context_noise: Whether past frames are in fact noised to that level.
        cache: "rolling" keeps each frame's keys and values as computed when it was new, which is exact for models
            trained with windowed attention; "exact" recomputes the window once it slides, for models that were not.
    """

    steps: int = 2
    method: Method = "euler"
    text_guidance: float = 1.0
    action_guidance: float = 1.0
    damping: float = 1.0
    context_level: float = 0.0
    context_noise: bool = True
    cache: Literal["rolling", "exact"] = "rolling"

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0.0 <= self.context_level < 1.0:
            raise ConfigError(
                expected="at least one step and a context level in [0, 1)",
                got=f"{self.steps} and {self.context_level}",
                remedy="Correct them.",
            )


class Step(NamedTuple):
    """What a step returns.

    Attributes:
        state: The state after the step.
        frames: uint8 (B, H, W, 3), or (B, 4, H, W, 3) with temporal stride 4.
        rewards: float32 (B,); zeros for a model without outcome heads.
        terminated: bool (B,); False for a model without outcome heads.
    """

    state: State
    frames: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray


class Simulator:
    """A learned world.

    Args:
        checkpoint: The networks.
        sampling: How frames are denoised; the checkpoint's own by default.
        device: Where to run.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, sampling: Sampling | None = None, device: str | torch.device = "cpu"
    ) -> None:
        self.checkpoint = checkpoint
        self.sampling = sampling or Sampling.from_dict(checkpoint.meta.get("sampling", {}))
        self.device = torch.device(device)
        self.model = checkpoint.model.to(self.device).eval()
        self.tokenizer = checkpoint.tokenizer.to(self.device).eval()
        self.fingerprint = _fingerprint(checkpoint)

    @property
    def action_space(self) -> spaces.Space | None:
        """Space of a single action."""
        return self.checkpoint.action_space

    @property
    def fps(self) -> float:
        """Frames per second of simulated time."""
        return self.checkpoint.fps

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) the model was trained at; other multiples of its stride work too."""
        return self.checkpoint.frame_size

    @property
    def actions_per_step(self) -> int:
        """Actions consumed and frames given by a step: the temporal stride."""
        return self.tokenizer.config.temporal_stride

    @torch.inference_mode()
    def reset(
        self,
        *,
        frames: np.ndarray | None = None,
        actions: Any = None,  # noqa: ANN401 - any space's value
        text: str | Sequence[str | None] | None = None,
        seed: int | Sequence[int] = 0,
        num_envs: int | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> tuple[State, np.ndarray]:
        """Starts one or more episodes.

        Args:
            frames: Given first frames, uint8 (T, H, W, 3) for all environments or (B, T, H, W, 3); without them the
                first frame is generated.
            actions: The T - 1 actions between the given frames, (T - 1, ...) or (B, T - 1, ...); without them the
                model is told that they are unknown.
            text: One text for all environments, or one each; None for no text.
            seed: One seed, from which environment k takes seed + k, or one each.
            num_envs: Number of environments, if `frames`, `text` and `seed` do not tell.
            frame_size: (H, W) of generated first frames; the training size by default.

        Returns:
            The state, and the latest frame of each environment, uint8 (B, H, W, 3).

        Raises:
            FramesError: If the frames' shape, type or size does not fit.
            ActionError: If the actions do not fit the frames or the space.
            TextError: If the model has no text, or a text is too long.
        """
        batch = _batch_size(frames, text, seed, num_envs)
        texts = [text] * batch if text is None or isinstance(text, str) else list(text)
        state = self._blank(batch, texts, seed, frame_size if frames is None else _size_of(frames))
        if frames is None:
            step = self._advance(state, None)
            return step.state, step.frames if self.actions_per_step == 1 else step.frames[:, -1]
        given = np.broadcast_to(frames, (batch, *frames.shape[-4:]))
        return self._prefill(state, given, actions), np.ascontiguousarray(given[:, -1])

    @torch.inference_mode()
    def step(self, state: State, actions: Any, *, donate: bool = False) -> Step:  # noqa: ANN401 - any space's value
        """Advances every environment by one step.

        Args:
            state: Where to go on from; stays valid.
            actions: One action per environment, stacked: (B, ...), or (B, 4, ...) with temporal stride 4. None for a
                world without actions, or to leave the action to the model.
            donate: Give up the old state: its memory is reused, which saves a copy of the cache.

        Raises:
            StateError: If the state belongs to another model.
            ActionError: If the actions do not fit the space.
        """
        self._check_state(state)
        vectors = None if actions is None else self._vectors(actions, state.num_envs)
        return self._advance(state if donate else state.clone(), vectors)

    @torch.inference_mode()
    def observe(self, state: State) -> np.ndarray:
        """The latest frame of each environment, decoded from the state: uint8 (B, H, W, 3).

        Raises:
            StateError: If the state belongs to another model, or has seen no frame.
        """
        self._check_state(state)
        if int(state.frame.min()) < 1:
            raise StateError(expected="a state that has seen a frame", got="a blank one", remedy="Reset first.")
        return from_model(self.tokenizer.decode(state.recent(1)[0]))[:, -1]

    def rollout(
        self,
        *,
        actions: Any = None,  # noqa: ANN401 - any space's value
        frames: np.ndarray | None = None,
        text: str | None = None,
        seed: int = 0,
        num_frames: int | None = None,
    ) -> np.ndarray:
        """A whole video of one environment.

        Args:
            actions: (T, ...) actions; None for none.
            frames: Given first frames, uint8 (T0, H, W, 3).
            text: The text.
            seed: The seed.
            num_frames: Frames to generate beyond the first; the number of actions by default.

        Returns:
            uint8 (T0 + T, H, W, 3); T0 is 1 if no frames are given.
        """
        stride = self.actions_per_step
        count = _length(actions) if actions is not None else num_frames
        if count is None or (num_frames is not None and count != num_frames) or count % stride:
            raise ActionError(
                expected=f"actions, or num_frames, in a multiple of {stride} that agree",
                got=f"{count} actions and num_frames {num_frames}",
                remedy="Pass one of the two.",
            )
        state, first = self.reset(frames=frames, text=text, seed=seed)
        video = list(first if frames is None else frames)
        for start in range(0, count, stride):
            chosen = None if actions is None else _slice(actions, start, stride)
            step = self.step(state, chosen, donate=True)
            state = step.state
            video.extend(step.frames[0] if stride > 1 else step.frames)
        return np.stack(video)

    def _advance(self, state: State, vectors: Tensor | None) -> Step:
        """Denoises the current frame, extends the cache in place, decodes."""
        state = self._refreshed(state)
        conditions = self._conditions(state, vectors)
        text_keys = self.model.text_keys(conditions.text)
        variants = len(self._variants)
        cache, path, rule = state.cache, self.model.path, self.sampling

        def denoise(x: Tensor, level: Tensor) -> Tensor:
            many = x.repeat(variants, 1, 1, 1, 1)
            levels = level.expand(len(many), 1)
            out = self.model.step(many, levels, conditions, cache, text_keys)
            clean = clean_from_prediction(path, self.model.config.prediction, out.prediction, many, levels)
            return self._guided(clean)

        noise = frame_noise(state.seeds, cache.frame[: state.num_envs], state.latents.shape[2:]).to(self.device)
        levels = level_grid(rule.steps, path)
        latent = sample(denoise, noise[:, None], levels, path, method=rule.method, damping=rule.damping)
        out = self._see(state, latent.repeat(variants, 1, 1, 1, 1), conditions, text_keys)
        rewards, terminated = self._outcomes(out[: state.num_envs])
        state = state.extended(latent[:, 0], None if vectors is None else vectors[:, 0])
        video = from_model(self.tokenizer.decode(latent))
        return Step(state, video[:, 0] if self.actions_per_step == 1 else video, rewards, terminated)

    def _see(self, state: State, latent: Tensor, conditions: Conditions, text_keys: list) -> Tensor:
        """The clean pass: writes the new frame's keys and values; returns its hidden tokens."""
        level = torch.full((len(latent), 1), self.sampling.context_level, device=self.device)
        seen = self._as_context(latent, state.seeds.repeat(len(self._variants)), state.cache.frame[:, None])
        return self.model.step(seen, level, conditions, state.cache, text_keys).hidden

    def _as_context(self, latents: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
        """Past frames as the network is shown them: (B, F, C, h, w), noised to the context level if asked."""
        if self.sampling.context_level == 0.0 or not self.sampling.context_noise:
            return latents
        noise = [frame_noise(seeds, positions[:, i], latents.shape[2:], stream=1) for i in range(latents.shape[1])]
        level = torch.full(latents.shape[:2], self.sampling.context_level, device=self.device)
        return mix(self.model.path, latents, torch.stack(noise, dim=1).to(latents), level)

    def _refreshed(self, state: State) -> State:
        """In "exact" mode, recomputes the cache from the window's latents once the window slides."""
        window = state.cache.window
        if self.sampling.cache == "rolling" or not bool((state.cache.frame >= window).any()):
            return state
        count = window - 1
        positions = state.cache.frame[:, None] - count + torch.arange(count, device=self.device)
        variants = len(self._variants)
        latents, actions, has_action = (x.repeat(variants, *(1,) * (x.ndim - 1)) for x in state.recent(count))
        real = positions >= 0
        mask = causal_mask(count, window, device=self.device) & real[:, None, :]
        mask = mask | torch.eye(count, dtype=torch.bool, device=self.device)  # rows of frames that never were
        conditions = self._variant_conditions(state, actions, has_action)
        self._fill(
            state, self._as_context(latents, state.seeds.repeat(variants), positions), conditions, positions, mask
        )
        return state

    def _prefill(self, state: State, frames: np.ndarray, actions: Any) -> State:  # noqa: ANN401 - any space's value
        """Passes given frames once, clean, and fills the cache."""
        num_latents(frames.shape[1], self.actions_per_step)
        latents = self.tokenizer.encode(to_model(frames, self.device))
        b, count = latents.shape[:2]
        if self.sampling.cache == "exact" and count > self.model.config.window:
            raise FramesError(
                expected=f"at most {self.model.config.window} given frames for a model without windowed training",
                got=count,
                remedy="Pass the last ones only.",
            )
        vectors, has_action = self._context_actions(actions, b, count)
        variants = len(self._variants)
        positions = torch.arange(count, device=self.device).expand(b * variants, count)
        conditions = self._variant_conditions(state, vectors.repeat(variants, 1, 1), has_action.repeat(variants, 1))
        shown = self._as_context(latents.repeat(variants, 1, 1, 1, 1), state.seeds.repeat(variants), positions)
        mask = causal_mask(count, self.model.config.window, device=self.device)
        self._fill(state, shown, conditions, positions, mask)
        for i in range(max(0, count - state.latents.shape[1]), count):
            state = state.remembered(latents[:, i], vectors[:, i], has_action[:, i], frame=i)
        return state.at(count)

    def _fill(self, state: State, latents: Tensor, conditions: Conditions, positions: Tensor, mask: Tensor) -> None:
        levels = torch.full(latents.shape[:2], self.sampling.context_level, device=self.device)

        def record(block: int, k: Tensor, v: Tensor) -> None:
            state.cache.fill(block, k, v, positions)

        if mask.ndim == 3:  # one per sequence; attention runs on (sequence, place) rows
            per_frame = latents.shape[-2] * latents.shape[-1] // self.model.config.patch**2
            places = per_frame + self.model.tokens_beside_patches
            mask = mask[:, None].expand(-1, places, -1, -1).flatten(0, 1)[:, None]
        self.model(latents, levels, conditions, positions=positions, mask=mask, record=record)

    @property
    def _variants(self) -> list[tuple[float, str]]:
        """(weight, what is dropped) of each evaluation that guidance combines; the full condition comes first."""
        weights = [("text", self.sampling.text_guidance), ("action", self.sampling.action_guidance)]
        return [(1.0, ""), *((w - 1.0, name) for name, w in weights if w != 1.0)]

    def _guided(self, clean: Tensor) -> Tensor:
        """Combines (variants * B, ...) estimates: full + sum of (weight - 1) * (full - without)."""
        full, *others = clean.chunk(len(self._variants))
        guided = full
        for (weight, _), other in zip(self._variants[1:], others, strict=True):
            guided = guided + weight * (full - other)
        return guided

    def _conditions(self, state: State, vectors: Tensor | None) -> Conditions:
        b = state.num_envs
        dim = self.model.config.action_dim
        has = torch.full((b, 1), vectors is not None, device=self.device)
        given = torch.zeros(b, 1, dim, device=self.device) if vectors is None else vectors
        variants = len(self._variants)
        return self._variant_conditions(state, given.repeat(variants, 1, 1), has.repeat(variants, 1))

    def _variant_conditions(self, state: State, actions: Tensor, has_action: Tensor) -> Conditions:
        """Conditions of all variants, stacked; what a variant drops is marked absent."""
        has_action = has_action.clone()
        texts = []
        for i, (_, dropped) in enumerate(self._variants):
            if dropped == "action":
                has_action[i * state.num_envs : (i + 1) * state.num_envs] = False
            texts.append(state.no_text if dropped == "text" else state.text)
        text = None if state.text is None else torch.cat(texts)
        return Conditions(actions=actions if self.model.config.action_dim else None, has_action=has_action, text=text)

    def _outcomes(self, hidden: Tensor) -> tuple[np.ndarray, np.ndarray]:
        if not self.model.config.heads_out:
            return np.zeros(len(hidden), np.float32), np.zeros(len(hidden), bool)
        reward, logit = self.model.outcomes(hidden)
        scaled = reward[:, 0].float() * self.checkpoint.reward_scale
        return scaled.cpu().numpy().astype(np.float32), (logit[:, 0] > 0).cpu().numpy()

    def _vectors(self, actions: Any, batch: int) -> Tensor:  # noqa: ANN401 - any space's value
        """One step's actions as (B, 1, action_dim)."""
        if self.action_space is None:
            raise ActionError(expected="no actions", got="some", remedy="This world takes None.")
        stride = self.actions_per_step
        vectors = action_vectors(self.action_space, actions, 1 if stride == 1 else 2)
        wanted = (batch,) if stride == 1 else (batch, stride)
        if vectors.shape[: len(wanted)] != wanted:
            raise ActionError(
                expected=f"actions for {wanted} (environments, then actions a step)",
                got=vectors.shape[: len(wanted)],
                remedy="Stack one action per environment.",
            )
        return torch.from_numpy(vectors.reshape(batch, 1, -1)).to(self.device)

    def _context_actions(self, actions: Any, batch: int, count: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Actions that led to each given latent frame, (B, F, action_dim), and whether they are known."""
        dim = self.model.config.action_dim
        vectors = torch.zeros(batch, count, dim, device=self.device)
        has = torch.zeros(batch, count, dtype=torch.bool, device=self.device)
        if actions is None or self.action_space is None or count == 1:
            return vectors, has
        given = np.asarray(action_vectors(self.action_space, actions, 2 if _has_batch(actions, batch) else 1))
        given = np.broadcast_to(given, (batch, *given.shape[-2:]))
        if given.shape[1] != (count - 1) * self.actions_per_step:
            raise ActionError(
                expected=f"{(count - 1) * self.actions_per_step} actions between the given frames",
                got=given.shape[1],
                remedy="actions[i] carries frame i to frame i+1.",
            )
        vectors[:, 1:] = torch.from_numpy(given.reshape(batch, count - 1, dim)).to(self.device)
        has[:, 1:] = True
        return vectors, has

    def _blank(
        self, batch: int, texts: list[str | None], seed: int | Sequence[int], frame_size: tuple[int, int] | None
    ) -> State:
        """A state in which nothing has been seen."""
        height, width = frame_size or self.frame_size
        config, stride = self.model.config, self.tokenizer.config.spatial_stride
        check_frame_size(height, width, self.tokenizer.config, patch=config.patch)
        if config.text is None and any(t is not None for t in texts):
            raise TextError(expected="no text for a model without a text encoder", got=texts[0], remedy="Pass None.")
        h, w = height // stride, width // stride
        cache = RingCache.empty(
            batch * len(self._variants),
            blocks=config.depth,
            tokens=h * w // config.patch**2 + self.model.tokens_beside_patches,
            window=config.window,
            heads=config.heads,
            head_dim=config.width // config.heads,
            like=self.model.patchify.weight,
        )
        seeds = [seed + k for k in range(batch)] if isinstance(seed, (int, np.integer)) else list(seed)
        return State.blank(
            cache,
            seeds=torch.tensor(seeds, dtype=torch.int64),
            text=self.model.encode_text(texts),
            no_text=self.model.encode_text([None] * batch),
            latent_shape=(config.latent_channels, h, w),
            action_dim=config.action_dim,
            fingerprint=self.fingerprint,
        )

    def _check_state(self, state: State) -> None:
        if state.fingerprint != self.fingerprint or state.cache.keys.shape[1] != state.num_envs * len(self._variants):
            raise StateError(
                expected=f"a state of this model ({self.fingerprint}) and this guidance",
                got=f"one of {state.fingerprint}",
                remedy="Reset this simulator, or step the one that made the state.",
            )


def load(
    name_or_path: str | Path, *, sampling: Sampling | None = None, device: str | torch.device = "cpu"
) -> Simulator:
    """A simulator from a shipped checkpoint's name or a checkpoint directory.

    Raises:
        UnknownNameError: If there is no such checkpoint; the message suggests the nearest name.
        CheckpointError: If it is truncated, foreign, of another version or not finite.
    """
    return Simulator(load_checkpoint(name_or_path, device=device), sampling=sampling, device=device)


def _fingerprint(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256(str(checkpoint.model.config).encode())
    # A few rows of every weight tell two trainings of one configuration apart at a small cost.
    for name, tensor in (*checkpoint.model.state_dict().items(), *checkpoint.tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().flatten()[:16].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _batch_size(
    frames: np.ndarray | None, text: str | Sequence[str | None] | None, seed: int | Sequence[int], num_envs: int | None
) -> int:
    told = {
        "num_envs": num_envs,
        "frames": len(frames) if isinstance(frames, np.ndarray) and frames.ndim == 5 else None,
        "text": None if text is None or isinstance(text, str) else len(text),
        "seed": None if isinstance(seed, (int, np.integer)) else len(seed),
    }
    sizes = {k: v for k, v in told.items() if v is not None}
    if len(set(sizes.values())) > 1 or any(v < 1 for v in sizes.values()):
        raise StateError(expected="one number of environments", got=sizes, remedy="Make them agree.")
    return next(iter(sizes.values()), 1)


def _size_of(frames: np.ndarray) -> tuple[int, int]:
    if (
        not isinstance(frames, np.ndarray)
        or frames.dtype != np.uint8
        or frames.ndim not in {4, 5}
        or frames.shape[-1] != 3
        or 0 in frames.shape
    ):
        got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
        raise FramesError(
            expected="frames as a uint8 array (T, H, W, 3) or (B, T, H, W, 3)", got=got, remedy="Convert them."
        )
    return frames.shape[-3], frames.shape[-2]


def _has_batch(actions: Any, batch: int) -> bool:  # noqa: ANN401 - any space's value
    leaf = next(iter(actions.values())) if isinstance(actions, dict) else actions
    return np.ndim(leaf) > 1 and len(leaf) == batch


def _length(actions: Any) -> int:  # noqa: ANN401 - any space's value
    return _length(next(iter(actions.values()))) if isinstance(actions, dict) else len(actions)


def _slice(actions: Any, start: int, stride: int) -> Any:  # noqa: ANN401 - any space's value
    """Actions of one step with a batch axis of one."""
    if isinstance(actions, dict):
        return {k: _slice(v, start, stride) for k, v in actions.items()}
    taken = np.asarray(actions[start : start + stride])
    return taken if stride == 1 else taken[None]
