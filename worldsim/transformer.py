"""VideoDiT: a causal video diffusion transformer over spacetime patches, conditioned on actions, text and camera.

The design follows DiT (Peebles & Xie 2022), with attention over space and time in turn, per-frame noise levels
(diffusion forcing, Chen et al. 2024) and windowed causal attention over time.

Shape legend: B sequences, F latent frames, C latent channels, h x w latent grid, P patches of a frame, D width.
"""

import copy
from collections.abc import Sequence
from typing import Literal, Self, cast, get_args

import torch
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import ModelConfig
from worldsim.errors import UnknownNameError
from worldsim.nn.blocks import HALVES, PARTS, Block, DenseLayout, Layout, PackedLayout, StepLayout, modulate
from worldsim.nn.cache import RingCache
from worldsim.nn.compiled import CompiledSteps
from worldsim.nn.ends import Entrance
from worldsim.nn.forecast import Forecast
from worldsim.nn.outcomes import Outcome
from worldsim.nn.passes import Clip, Clips, Conditions, Output, Plan, Record, TextKeys, TimeMask, check_clips
from worldsim.nn.rope import temporal_rotation
from worldsim.text import TextEncoder

__all__ = ["Clip", "Clips", "Conditions", "Output", "VideoDiT"]


Precision = Literal["float32", "bfloat16"]


class VideoDiT(Entrance):
    """Noisy latents, noise levels and conditions to predictions; reward and termination from clean frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        d, heads = config.width, config.heads
        self.text = TextEncoder(config.text, d, heads) if config.text else None
        self.text_pool = nn.Linear(d, d) if config.text else None
        self.text_summary = nn.Linear(d, config.text.summary) if config.text and config.text.summary else None
        shared = config.modulation == "shared"
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, HALVES * PARTS * d)) if shared else None
        self.blocks = nn.ModuleList(
            Block(
                d,
                heads,
                mlp_ratio=config.mlp_ratio,
                qk_norm=config.qk_norm,
                shared_modulation=shared,
                with_text=config.text is not None,
            )
            for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))
        self.unpatchify = nn.Linear(d, config.latent_channels * config.patch**2)
        self.outcome = Outcome(d, config.reward_bins) if config.heads_out else None
        self.forecast = Forecast(config) if config.forecast else None
        self.compiled: CompiledSteps | None = None
        self._initialise()

    @property
    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def compile_blocks(self) -> None:
        """Runs the blocks through torch.compile: one block is compiled for each shape of batch, and serves for all."""
        for block in self._stack:
            # The hyperbolic tangent of GELU by one exponential, a quarter of the library's time, as exact.
            block.compile(dynamic=False, options={"cpp.use_decompose_tanh": True})

    def for_stepping(self, precision: Precision = "float32", *, compiled: bool = False) -> Self:
        """This model as steps are to run it: itself, or a copy that shares its weights where they stay as they are.

        Args:
            precision: Of weights, tokens and cache; latents stay float32.
            compiled: Whether passes over a new frame go through torch.compile; the first ones take a minute.

        Raises:
            UnknownNameError: If the precision is not known.
            ConfigError: If there is no C++ compiler to compile with.
        """
        if precision not in get_args(Precision):
            raise UnknownNameError(kind="precision", name=precision, known=get_args(Precision))
        dtype, model = getattr(torch, precision), self
        if self.dtype != dtype:
            model = copy.deepcopy(self).to(dtype)
            for norm in (m for m in model.modules() if isinstance(m, nn.RMSNorm)):
                norm.float()  # as under autocast: queries and keys are normalised in float32
            if model.forecast is not None:
                model.forecast.float()  # latents stay float32
        elif compiled:
            model = copy.copy(self)
        if compiled:
            model.compiled = CompiledSteps(self.patchify.weight.device)
        return model

    def encode_text(self, texts: list[str | None]) -> Tensor | None:
        """(B, L, D) memory of the texts; None stands for no text. None for a model without text."""
        if self.text is None:
            return None
        ids = self.text.tokenise([t or "" for t in texts]).to(self.patchify.weight.device)
        keep = torch.tensor([t is not None for t in texts], device=ids.device)
        return self.text(ids, keep)

    def text_keys(self, text: Tensor | None) -> TextKeys:
        """Each block's keys and values of the text; computed once per text, not per frame."""
        return [None if text is None or b.text_keys is None else b.text_keys(text) for b in self._stack]

    def forward(
        self,
        latents: Tensor,
        levels: Tensor,
        conditions: Conditions,
        *,
        positions: Tensor,
        mask: Tensor | None,
        record: Record | None = None,
    ) -> Output:
        """Whole sequences at once.

        Args:
            latents: (B, F, C, h, w).
            levels: (B, F) noise levels in [0, 1].
            conditions: Actions, text, camera.
            positions: (F,) or (B, F) integer frame positions.
            mask: (F, F) boolean as from `causal_mask`, or None for bidirectional time.
            record: Receives each block's keys and values over time.

        Raises:
            FramesError: If the latent grid is not divisible by the patch.
        """
        x, grid, c = self._enter(latents, levels, conditions)
        time = temporal_rotation(positions, self.head_dim, dtype=x.dtype)
        # What is recorded for later frames keeps the order of the weights.
        layout = DenseLayout(grid, time, mask, record, halved=record is None and not time.is_complex())
        hidden = self._blocks(x, c, layout, self.text_keys(conditions.text))
        return Output(prediction=self._unpatched(self._patches(hidden, self._end(c), layout), latents), hidden=hidden)

    def remember(
        self,
        latents: Tensor,
        levels: Tensor,
        conditions: Conditions,
        *,
        positions: Tensor,
        mask: Tensor | None,
        record: Record,
    ) -> None:
        """As `forward`, but only as far as the keys and values over time, which `record` receives."""
        x, grid, c = self._enter(latents, levels, conditions)
        layout = DenseLayout(grid, temporal_rotation(positions, self.head_dim, dtype=x.dtype), mask, record)
        self._remember(x, self._modulations(c), layout, self.text_keys(conditions.text))

    def forward_packed(self, clips: Sequence[Clip], *, bidirectional: bool = False) -> list[Output]:
        """Whole sequences of different sizes, aspect ratios and durations at once, without padding.

        Args:
            clips: At least one; either all with text or all without.
            bidirectional: Every frame sees every frame of its clip; otherwise time is causal with the model's window.

        Returns:
            For each clip what `forward` returns of it, without the batch axis.

        Raises:
            FramesError: If there is no clip, or a latent grid is not divisible by the patch.
            TextError: If some clips have text and some have none.
        """
        outputs = self.forward_mixed([c.alone() for c in clips], time="bidirectional" if bidirectional else "causal")
        return [Output(prediction=out.prediction[0], hidden=out.hidden[0]) for out in outputs]

    def forward_mixed(self, groups: Sequence[Clips], *, time: TimeMask) -> list[Output]:
        """As `forward_packed`, of clips that come in groups of one shape each.

        Args:
            groups: At least one; either all with text or all without.
            time: Who sees whom over time.

        Returns:
            For each group what `forward` returns of it.

        Raises:
            FramesError: If there is no group, or a latent grid is not divisible by the patch.
            TextError: If some groups have text and some have none.
        """
        check_clips(groups)
        entered = [self._enter(g.latents, g.levels, g.conditions) for g in groups]
        shapes = [(x.shape[0], x.shape[1], x.shape[2]) for x, _, _ in entered]
        x = torch.cat([x.flatten(0, 2) for x, _, _ in entered])
        texts = [g.conditions.text for g in groups if g.conditions.text is not None]
        text = torch.cat(texts) if texts else None
        times = [temporal_rotation(g.positions, self.head_dim, dtype=x.dtype) for g in groups]
        layout = PackedLayout(
            shapes,
            [grid for _, grid, _ in entered],
            times,
            window=None if time == "bidirectional" else self.config.window,
            streams=2 if time == "two_streams" else 1,
            text_tokens=0 if text is None else text.shape[1],
            halved=not times[0].is_complex(),
        )
        condition = torch.cat([c.flatten(0, 1) for _, _, c in entered])
        tokens = self._blocks(x, condition, layout, self.text_keys(text))
        patches = self._patches(tokens, self._end(condition), layout)
        ends = [b * f * n for b, f, n in shapes]
        parts = zip(groups, shapes, tokens.split(ends), patches.split(ends), strict=True)
        return [
            Output(prediction=self._unpatched(p.unflatten(0, shape), group.latents), hidden=t.unflatten(0, shape))
            for group, shape, t, p in parts
        ]

    def plan(self, levels: Tensor, conditions: Conditions, cache: RingCache, text_keys: TextKeys) -> Plan:
        """What passes over one new frame at several noise levels share, for all of them at once.

        Args:
            levels: (S,), one a pass, or (B, S).
            conditions: Of the new frame, (B, 1, ...).
            cache: Its `frame` (B,) is the position of the new frame.
            text_keys: From `text_keys`.
        """
        batch = len(cache.frame)
        action = self.embed_action(batch, 1, conditions)
        c = self._condition(levels.expand(batch, -1), conditions, action)
        # Sinks stay as far away as the oldest frames of a window that has just filled: a distance known from training.
        nearest = cache.frame.clamp(max=cache.window - 1)
        return Plan(
            time=temporal_rotation(cache.frame[:, None], self.head_dim, dtype=c.dtype),
            sink_time=temporal_rotation(nearest[:, None], self.head_dim, dtype=c.dtype) if cache.sinks else None,
            action_token=self.embed_action_token(action),
            modulations=[m.split(1, dim=1) for m in self._modulations(c)],
            ends=self._end(c).split(1, dim=1),
            text_keys=text_keys,
        )

    def step(self, latent: Tensor, plan: Plan, index: int, cache: RingCache, expected: Tensor | None = None) -> Tensor:
        """One pass over one new frame against the cache, whose current slot it may overwrite in place.

        Args:
            latent: (B, 1, C, h, w).
            plan: The passes over this frame.
            index: Which of them this is.
            cache: Keys and values of the past.
            expected: Of the frame, as in `Conditions`.

        Returns:
            The prediction (B, 1, C, h, w), of the configured kind.
        """
        x, grid = self.embed_latents(latent, plan.action_token, expected)
        layout = StepLayout(grid, plan.time, cache, plan.sink_time)
        if self.compiled is not None:
            hidden = self.compiled(self._stack, x, grid, plan, index, cache, keep=False)
        else:
            hidden = self._modulated(x, plan.modulations_of(index), layout, plan.text_keys)
        return self._unpatched(self._patches(hidden, plan.ends[index], layout), latent)

    def see(self, latent: Tensor, plan: Plan, index: int, cache: RingCache) -> Tensor | None:
        """As `step`, of which the cache is what matters.

        Returns:
            The last hidden tokens (B, 1, N, D), or None for a model without outcome heads.
        """
        x, grid = self.embed_latents(latent, plan.action_token)
        if self.compiled is not None:
            return self.compiled(self._stack, x, grid, plan, index, cache, keep=True)
        layout = StepLayout(grid, plan.time, cache, plan.sink_time)
        if self.outcome is not None:
            return self._modulated(x, plan.modulations_of(index), layout, plan.text_keys)
        self._remember(x, plan.modulations_of(index), layout, plan.text_keys)
        return None

    def outcomes(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and termination logit of frames seen clean: (B, F, N, D) to two (B, F)."""
        return self._heads()(hidden)

    def outcome_losses(self, hidden: Tensor, rewards: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """Losses of each frame's reward and termination, two (B, F); see `Outcome.losses`."""
        return self._heads().losses(hidden, rewards, terminated)

    def _heads(self) -> Outcome:
        assert self.outcome is not None, "the model has no outcome heads"
        return self.outcome

    def _enter(self, latents: Tensor, levels: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, F, N, D), the rotation of their places in the frame, and the condition of each frame (B, F, D)."""
        batch, frames = latents.shape[:2]
        action = self.embed_action(batch, frames, conditions)
        x, grid = self.embed_latents(latents, self.embed_action_token(action), conditions.expected)
        return x, grid, self._condition(levels, conditions, action)

    def _condition(self, levels: Tensor, conditions: Conditions, action: Tensor | None) -> Tensor:
        """(B, F, D)."""
        c = self.embed_condition(levels, conditions, action)
        if self.text_pool is not None and conditions.text is not None:
            c = c + self.text_pool(conditions.text.mean(dim=1))[:, None]
        return c

    def _shared(self, c: Tensor) -> Tensor:
        """Conditions (frames..., D) to what the blocks take: themselves, or the modulation that the blocks share."""
        return c if self.modulation is None else self.modulation(c).unflatten(-1, (HALVES * PARTS, -1))

    def _modulations(self, c: Tensor) -> list[Tensor]:
        """Conditions (frames..., D) to each block's modulation (frames..., 12, D)."""
        shared = self._shared(c)
        return [block.modulation_of(shared) for block in self._stack]

    def _end(self, c: Tensor) -> Tensor:
        """Conditions (frames..., D) to the last shift and scale (frames..., 2, D)."""
        return self.modulation_out(c).unflatten(-1, (2, -1))

    def _blocks(self, x: Tensor, c: Tensor, layout: Layout, text_keys: TextKeys) -> Tensor:
        """Tokens as the layout arranges them, and conditions (frames..., D), to hidden tokens."""
        shared = self._shared(c)
        for i, (block, keys) in enumerate(zip(self._stack, text_keys, strict=True)):
            layout.block = i
            x = block(x, shared, layout, keys)
        return x

    def _modulated(self, x: Tensor, modulations: Sequence[Tensor], layout: Layout, text_keys: TextKeys) -> Tensor:
        """As `_blocks`, given the modulations, of any number of leading blocks."""
        for i, (block, modulation, keys) in enumerate(zip(self._stack, modulations, text_keys, strict=False)):
            layout.block = i
            x = block.modulated(x, modulation, layout, keys)
        return x

    def _remember(self, x: Tensor, modulations: Sequence[Tensor], layout: DenseLayout, text_keys: TextKeys) -> None:
        """As `_modulated`, but only as far as the last keys and values over time."""
        x = self._modulated(x, modulations[:-1], layout, text_keys)
        layout.block = len(self.blocks) - 1
        self._stack[-1].remember(x, modulations[-1], layout, text_keys[-1])

    def _patches(self, hidden: Tensor, end: Tensor, layout: Layout) -> Tensor:
        """Hidden tokens (..., D) to flat patches."""
        shift, scale = layout.per_token(end).unbind(-2)
        return self.unpatchify(modulate(self.norm_out(hidden), shift, 1.0 + scale))

    def _unpatched(self, patches: Tensor, latents: Tensor) -> Tensor:
        """Flat patches (..., F, N, C p q), other tokens behind them, to latents like the given ones."""
        p = self.config.patch
        return rearrange(
            patches[..., : patches.shape[-2] - self.tokens_beside_patches, :],
            "... F (h w) (p q C) -> ... F C (h p) (w q)",
            p=p,
            q=p,
            h=latents.shape[-2] // p,
        )

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # adaLN-Zero: every block starts as the identity, and the first prediction is zero.
        zero = [self.unpatchify, self.modulation_out[1]]
        zero += [self.modulation[1]] if self.modulation is not None else [b.modulation[1] for b in self._stack]
        for linear in zero:
            nn.init.zeros_(linear.weight)
        for block in self._stack:
            if block.shared_modulation:
                nn.init.zeros_(block.offsets)
        if self.forecast is not None:
            self.forecast.begin()
        if self.expected is not None:
            nn.init.zeros_(self.expected.weight)
