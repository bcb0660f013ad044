"""Dynamics: a transformer driven frame by frame over latents.

A frame is denoised against the cached past, then passed once more, clean, to extend the cache. The methods here write
into the state they are given and return it as the next one; `Simulator` decides when to copy.

Shape legend: B environments, V guidance variants, F latent frames, C latent channels, h x w latent grid.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from worldsim.controls import Controls
from worldsim.errors import ConfigError, FramesError, StateError
from worldsim.nn.cache import RingCache
from worldsim.nn.forecast import told
from worldsim.nn.masks import causal_mask
from worldsim.nn.passes import Conditions, Plan
from worldsim.noise import VariancePreserving, clean_from_prediction, mix, source
from worldsim.sampler import level_grid, sample
from worldsim.sampling import Sampling
from worldsim.state import State, frame_noise
from worldsim.transformer import VideoDiT
from worldsim.variants import Variants

_CONTEXT_STREAM, _ERROR_STREAM = 1, 2  # of `frame_noise`; stream 0 starts frames


class Dynamics:
    """A transformer and how it is sampled.

    Args:
        model: The transformer, on its device.
        sampling: How frames are denoised.

    Raises:
        ConfigError: If the sampling does not suit the model's noise path or window.
    """

    def __init__(self, model: VideoDiT, sampling: Sampling) -> None:
        if sampling.method == "heun" and isinstance(model.path, VariancePreserving):
            raise ConfigError(
                expected="method 'euler' (DDIM) for a model with a variance-preserving path",
                got="'heun'",
                remedy="Leave the method out.",
            )
        if sampling.sinks >= model.config.window:
            raise ConfigError(
                expected=f"fewer sinks than the window of {model.config.window} frames",
                got=sampling.sinks,
                remedy="Leave some frames to the recent past.",
            )
        self.model, self.sampling = model, sampling
        self._levels = level_grid(sampling.steps, model.path)
        self._first_levels = level_grid(sampling.first_steps, model.path)
        self._variants = Variants(model, sampling.variants)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.patchify.weight.device

    def blank(self, seeds: list[int], texts: list[str | None], grid: tuple[int, int], *, fingerprint: str) -> State:
        """A state of len(seeds) environments in which nothing has been seen.

        Args:
            seeds: One for each environment.
            texts: One, or None, for each environment.
            grid: (h, w) of the latents.
            fingerprint: Which model the state belongs to.
        """
        config, variants = self.model.config, self.sampling.variants
        cache = RingCache.empty(
            len(seeds) * len(variants),
            blocks=config.depth,
            tokens=grid[0] * grid[1] // config.patch**2 + self.model.tokens_beside_patches,
            window=config.window,
            heads=config.heads,
            head_dim=config.width // config.heads,
            like=self.model.patchify.weight,
            sinks=self.sampling.sinks,
        )
        return State.blank(
            cache,
            seeds=torch.tensor(seeds, dtype=torch.int64),
            captions=tuple(texts),
            text=self.model.encode_text(texts),
            no_text=self.model.encode_text([None] * len(seeds)),
            grid=grid,
            config=config,
            fingerprint=fingerprint,
            variants=variants,
        )

    def check(self, state: State, fingerprint: str) -> None:
        """Raises StateError if the state belongs to another model, another guidance or other sinks."""
        if not isinstance(state, State) or state.fingerprint != fingerprint:
            raise StateError(
                expected=f"a state of this model ({fingerprint})",
                got=f"one of {state.fingerprint}" if isinstance(state, State) else type(state).__name__,
                remedy="Step the simulator that made the state, or reset this one.",
            )
        if state.variants != self.sampling.variants:
            raise StateError(
                expected=f"a state with the evaluations {self.sampling.variants} of this guidance",
                got=state.variants,
                remedy="Guidance keeps a cache for each evaluation: reset under the sampling that is to be used.",
            )
        if state.cache.sinks != self.sampling.sinks:
            raise StateError(
                expected=f"a state with {self.sampling.sinks} attention sinks",
                got=state.cache.sinks,
                remedy="Sinks have their own slots in the cache: reset under the sampling that is to be used.",
            )

    def advance(
        self, state: State, controls: Controls, noise: Tensor | None = None
    ) -> tuple[State, Tensor, Tensor | None]:
        """Denoises the next frame and remembers it, in place.

        Args:
            state: Where to go on from.
            controls: (B, 1, ...), what leads to the frame.
            noise: (B, 1, C, h, w) to start from, alone or around the previous frame; by default what follows from the
                seeds.

        Returns:
            The next state, the frame's clean latent (B, 1, C, h, w), and its hidden tokens (B, 1, N, D), None for a
            model without outcome heads.
        """
        state = self.refreshed(state)
        if noise is None:
            noise = frame_noise(state.seeds, state.frame, state.latents.shape[2:])[:, None].to(self.device)
        rule, alone = self.sampling, bool((state.frame == 0).any())
        grid = (self._first_levels if alone else self._levels).to(noise.dtype)
        levels = [*grid[:-1].tolist(), rule.context_level]
        plan = self._plan(state, controls, levels)
        begin, expected = self._source(state, noise, controls)
        denoise = self._denoiser(state, plan, levels, expected)
        latent = sample(denoise, begin, grid, self.model.path, method=rule.method, damping=rule.damping)
        hidden = self._see(state, latent, plan, len(levels) - 1)
        return state.extended(latent[:, 0], controls), latent, hidden

    def observe(self, state: State, latent: Tensor, controls: Controls) -> State:
        """Remembers a frame that was seen rather than denoised, in place.

        Args:
            state: Where to go on from.
            latent: (B, 1, C, h, w) clean.
            controls: (B, 1, ...), what led to it.
        """
        state = self.refreshed(state)
        self._see(state, latent, self._plan(state, controls, [self.sampling.context_level]), 0)
        return state.extended(latent[:, 0], controls)

    def denoising_error(
        self, state: State, latent: Tensor, controls: Controls, levels: Sequence[float], draws: int
    ) -> Tensor:
        """Mean squared error of the next frame's clean estimates from noisy ones, (B,) float64.

        Args:
            state: Where the frame follows on; the current slot of its cache is overwritten.
            latent: (B, 1, C, h, w) the true frame, clean.
            controls: (B, 1, ...), what led to it.
            levels: Noise levels in (0, 1].
            draws: Draws of the noise, which follows from the state's seeds and frame.
        """
        state = self.refreshed(state)
        grid = torch.tensor(levels, dtype=latent.dtype)
        at = grid.tolist()
        plan = self._plan(state, controls, at)
        total = torch.zeros(state.num_envs, dtype=torch.float64, device=self.device)
        for draw in range(draws):
            noise = frame_noise(state.seeds, state.frame, latent.shape[2:], stream=_ERROR_STREAM + draw)[:, None]
            noise, expected = self._source(state, noise.to(latent), controls)
            denoise = self._denoiser(state, plan, at, expected)
            for level in grid:
                guess = denoise(mix(self.model.path, latent, noise, level), level)
                total += (guess - latent).double().square().mean(dim=(1, 2, 3, 4))
        return total / (draws * len(levels))

    def prefill(self, state: State, latents: Tensor, controls: Controls) -> State:
        """Passes given frames once, clean, through a blank state, in place.

        Args:
            state: A blank state.
            latents: (B, F, C, h, w).
            controls: (B, F, ...), what led to each of them.

        Raises:
            FramesError: If a model that must be refreshed is given more frames than its window.
        """
        window, count = self.model.config.window, latents.shape[1]
        if self.sampling.cache == "exact" and count > window:
            raise FramesError(
                expected=f"at most {window} given (latent) frames for a model without windowed training",
                got=count,
                remedy="Pass the last ones only.",
            )
        # Beyond the window, sinks lie at other distances for every frame: those frames are passed one by one.
        many = min(count, window) if self.sampling.sinks else count
        positions = torch.arange(many, device=self.device).expand(len(state.variants) * state.num_envs, many)
        mask = causal_mask(many, window, device=self.device)
        self._fill(state, latents[:, :many], controls.at(slice(many)), positions, mask)
        for i in range(max(0, many - window), many):
            state = state.remembered(latents[:, i], controls.at(slice(i, i + 1)), torch.full_like(state.frame, i))
        state = state.at(many)
        for i in range(many, count):
            state = self.observe(state, latents[:, i : i + 1], controls.at(slice(i, i + 1)))
        return state

    def refreshed(self, state: State) -> State:
        """In "exact" mode, recomputes the cache in place from the window's latents once the window slides."""
        window = state.cache.window
        if self.sampling.cache == "rolling" or not bool((state.cache.frame >= window).any()):
            return state
        count = window - 1
        latents, controls = state.recent(count)
        positions = state.cache.frame[:, None] - count + torch.arange(count, device=self.device)
        # Rows that have seen fewer frames than the window hold nothing at negative positions; a frame that never was
        # sees itself alone, so that no row is empty.
        mask = causal_mask(count, window, device=self.device) & (positions >= 0)[:, None, :]
        mask = mask | torch.eye(count, dtype=torch.bool, device=self.device)
        places = state.cache.keys.shape[2]
        rows = mask[:, None].expand(-1, places, -1, -1).flatten(0, 1)[:, None]
        self._fill(state, latents, controls, positions, rows)
        return state

    def _source(self, state: State, noise: Tensor, controls: Controls) -> tuple[Tensor, Tensor | None]:
        """What denoising of the next frame begins with, (B, 1, C, h, w), and `Conditions.expected` of it."""
        config, seen = self.model.config, (state.frame > 0)[:, None].to(noise.device)
        if config.source == "noise":
            return noise, None
        if self.model.forecast is None or config.source == "previous":
            return source(config, noise, state.recent(1)[0], seen), None
        count = self.model.forecast.frames
        positions = state.frame[:, None].to(self.device) - count + torch.arange(count, device=self.device)
        shown = self._as_context(state.recent(count)[0], state.seeds, positions)
        before = torch.where(positions[..., None, None, None] >= 0, shown, 0.0)[:, None]
        forecast, spread = self.model.forecast(before, Conditions(**controls.tensors()))
        return source(config, noise, forecast, seen, spread), told(forecast, spread, seen)

    def _plan(self, state: State, controls: Controls, levels: Sequence[float]) -> Plan:
        """What the passes over the next frame share; one pass for each level."""
        conditions, text_keys = self._variants.conditions(state, controls), self._variants.text_keys(state)
        return self.model.plan(torch.tensor(levels, device=self.device), conditions, state.cache, text_keys)

    def _denoiser(
        self, state: State, plan: Plan, levels: Sequence[float], expected: Tensor | None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The guided clean estimate as a function of (x, level), which samplers take; the plan is of these levels."""
        model = self.model
        known = None if expected is None else self._variants.repeat(expected)

        def denoise(x: Tensor, level: Tensor) -> Tensor:
            many = self._variants.repeat(x)
            prediction = model.step(many, plan, levels.index(level.item()), state.cache, known)
            return self.sampling.guided(
                clean_from_prediction(model.path, model.config.prediction, prediction, many, level)
            )

        return denoise

    def _see(self, state: State, latent: Tensor, plan: Plan, index: int) -> Tensor | None:
        """The clean pass: writes the new frame's keys and values; returns its hidden tokens (B, 1, N, D), if asked."""
        seen = self._variants.repeat(self._as_context(latent, state.seeds, state.frame[:, None]))
        hidden = self.model.see(seen, plan, index, state.cache)
        return None if hidden is None else hidden[: state.num_envs]

    def _as_context(self, latents: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
        """Past frames as the network is shown them, (B, F, C, h, w): noised to the context level if asked."""
        if self.sampling.context_level == 0.0 or not self.sampling.context_noise:
            return latents
        noise = [
            frame_noise(seeds, positions[:, i], latents.shape[2:], stream=_CONTEXT_STREAM)
            for i in range(latents.shape[1])
        ]
        level = torch.full(latents.shape[:2], self.sampling.context_level, device=self.device)
        return mix(self.model.path, latents, torch.stack(noise, dim=1).to(latents), level)

    def _fill(self, state: State, latents: Tensor, controls: Controls, positions: Tensor, mask: Tensor) -> None:
        """Recomputes the cache from a run of clean frames; `positions` is (V * B, F)."""
        shown = self._variants.repeat(self._as_context(latents, state.seeds, positions[: state.num_envs]))
        levels = torch.full(shown.shape[:2], self.sampling.context_level, device=self.device)
        conditions = self._variants.conditions(state, controls)

        def record(block: int, k: Tensor, v: Tensor) -> None:
            state.cache.fill(block, k, v, positions)

        self.model.remember(shown, levels, conditions, positions=positions, mask=mask, record=record)
