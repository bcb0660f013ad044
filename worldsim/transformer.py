"""VideoDiT: a causal video diffusion transformer over spacetime patches, conditioned on actions, text and camera.

The design follows DiT (Peebles & Xie 2022), with attention over space and time in turn, per-frame noise levels
(diffusion forcing, Chen et al. 2024) and windowed causal attention over time.

Shape legend: B sequences, F latent frames, C latent channels, h x w latent grid, P patches of a frame, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from worldsim.config import ModelConfig
from worldsim.errors import FramesError, TextError
from worldsim.nn.blocks import HALVES, PARTS, Block, DenseLayout, Layout, PackedLayout, StepLayout, modulate
from worldsim.nn.cache import RingCache
from worldsim.nn.ends import LEVEL_FEATURES, Outcome, level_features
from worldsim.nn.rope import grid_rotation, temporal_rotation
from worldsim.noise import path_named
from worldsim.text import TextEncoder


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the frames are conditioned on; every part may be absent.

    Attributes:
        actions: (B, F, action_dim); `actions[:, i]` led to frame i (frame 0 of an episode has none).
        has_action: (B, F) boolean; where False the learned absence of an action is used.
        text: (B, L, D) from `VideoDiT.encode_text`.
        camera: (B, F, camera_dim), motion of the camera to frame i.
    """

    actions: Tensor | None = None
    has_action: Tensor | None = None
    text: Tensor | None = None
    camera: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the network says of each frame.

    Attributes:
        prediction: (B, F, C, h, w), of the configured kind.
        hidden: (B, F, N, D), last hidden tokens, for the heads.
    """

    prediction: Tensor
    hidden: Tensor


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sequence of a packed batch.

    Attributes:
        latents: (F, C, h, w), of any number of frames and any grid divisible by the patch.
        levels: (F,) noise levels in [0, 1].
        positions: (F,) integer frame positions.
        conditions: Of this clip, with a batch axis of one.
    """

    latents: Tensor
    levels: Tensor
    positions: Tensor
    conditions: Conditions


class VideoDiT(nn.Module):
    """Noisy latents, noise levels and conditions to predictions; reward and termination from clean frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.path = path_named(config.path)
        d, heads = config.width, config.heads
        self.patchify = nn.Linear(config.latent_channels * config.patch**2, d)
        self.level = nn.Sequential(nn.Linear(LEVEL_FEATURES, d), nn.SiLU(), nn.Linear(d, d))
        self.action = nn.Linear(config.action_dim, d) if config.action_dim else None
        self.no_action = nn.Parameter(torch.zeros(d)) if config.action_dim else None
        self.action_token = nn.Linear(d, d) if config.action_dim and config.action_token else None
        self.camera = nn.Linear(config.camera_dim, d) if config.camera_dim else None
        self.text = TextEncoder(config.text, d, heads) if config.text else None
        self.text_pool = nn.Linear(d, d) if config.text else None
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
        self.outcome = Outcome(d) if config.heads_out else None
        self._initialise()

    @property
    def _stack(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def compile_blocks(self) -> None:
        """Runs the blocks through torch.compile: one block is compiled for each shape of batch, and serves for all."""
        for block in self._stack:
            block.compile(dynamic=False)

    @property
    def tokens_beside_patches(self) -> int:
        """Tokens of a frame that are not patches."""
        return int(self.action_token is not None)

    def encode_text(self, texts: list[str | None]) -> Tensor | None:
        """(B, L, D) memory of the texts; None stands for no text. None for a model without text."""
        if self.text is None:
            return None
        ids = self.text.tokenise([t or "" for t in texts]).to(self.patchify.weight.device)
        keep = torch.tensor([t is not None for t in texts], device=ids.device)
        return self.text(ids, keep)

    def text_keys(self, text: Tensor | None) -> list[tuple[Tensor, Tensor] | None]:
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
        record=None,  # noqa: ANN001 - see DenseLayout
    ) -> Output:
        """Whole sequences at once.

        Args:
            latents: (B, F, C, h, w).
            levels: (B, F) noise levels in [0, 1].
            conditions: Actions, text, camera.
            positions: (F,) or (B, F) integer frame positions.
            mask: (F, F) boolean as from `causal_mask`, or None for bidirectional time.
            record: Receives each block's temporal keys and values.

        Raises:
            FramesError: If the latent grid is not divisible by the patch.
        """
        x, grid, c = self._enter(latents, levels, conditions)
        time = temporal_rotation(positions, self._head_dim, dtype=x.dtype)
        layout = DenseLayout(grid, time, mask, record)
        return self._output(*self._blocks(x, c, layout, self.text_keys(conditions.text)), latents)

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
        _check_clips(clips)
        entered = [self._enter(c.latents[None], c.levels[None], c.conditions) for c in clips]
        shapes = [(x.shape[1], x.shape[2]) for x, _, _ in entered]
        x = torch.cat([x.flatten(0, 2) for x, _, _ in entered])
        texts = [c.conditions.text for c in clips if c.conditions.text is not None]
        text = torch.cat(texts) if texts else None
        layout = PackedLayout(
            shapes,
            [grid for _, grid, _ in entered],
            temporal_rotation(torch.cat([c.positions for c in clips]), self._head_dim, dtype=x.dtype),
            None if bidirectional else self.config.window,
            0 if text is None else text.shape[1],
        )
        conditions = torch.cat([c[0] for _, _, c in entered])
        tokens, out = self._blocks(x, conditions, layout, self.text_keys(text))
        ends = [f * n for f, n in shapes]
        parts = zip(clips, shapes, tokens.split(ends), out.split(ends), strict=True)
        return [self._output(t.unflatten(0, s), o.unflatten(0, s), c.latents) for c, s, t, o in parts]

    def step(
        self,
        latent: Tensor,
        level: Tensor,
        conditions: Conditions,
        cache: RingCache,
        text_keys: list[tuple[Tensor, Tensor] | None],
    ) -> Output:
        """One new frame against the cache, whose current slot it overwrites in place.

        Args:
            latent: (B, 1, C, h, w).
            level: (B, 1).
            conditions: Of the new frame, (B, 1, ...).
            cache: Its `frame` is the position of the new frame.
            text_keys: From `text_keys`.
        """
        x, grid, c = self._enter(latent, level, conditions)
        time = temporal_rotation(cache.frame[:, None], self._head_dim, dtype=x.dtype)
        return self._output(*self._blocks(x, c, StepLayout(grid, time, cache), text_keys), latent)

    def outcomes(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and termination logit of frames seen clean: (B, F, N, D) to two (B, F)."""
        assert self.outcome is not None, "the model has no outcome heads"
        return self.outcome(hidden)

    @property
    def _head_dim(self) -> int:
        return self.config.width // self.config.heads

    def _enter(self, latents: Tensor, levels: Tensor, conditions: Conditions) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, F, N, D), the rotation of their places in the frame, and the condition of each frame (B, F, D)."""
        p = self.config.patch
        h, w = latents.shape[-2:]
        if h % p or w % p:
            raise FramesError(
                expected=f"a latent grid divisible by the patch size {p}",
                got=f"{h} x {w}",
                remedy="Use frames whose height and width are multiples of the stride times the patch size.",
            )
        x = self.patchify(rearrange(latents, "B F C (h p) (w q) -> B F (h w) (C p q)", p=p, q=p))
        kind, beside = self.config.grid_positions, self.tokens_beside_patches
        grid = grid_rotation(h // p, w // p, self._head_dim, kind, x.dtype, x.device, beside=beside)
        action = self._action_embedding(latents, conditions)
        if self.action_token is not None and action is not None:
            x = torch.cat((x, self.action_token(action).unsqueeze(2)), dim=2)
        return x, grid, self._condition(latents, levels, conditions, action)

    def _action_embedding(self, latents: Tensor, conditions: Conditions) -> Tensor | None:
        """(B, F, D), or None for a model without actions."""
        if self.action is None or self.no_action is None:
            return None
        b, f = latents.shape[:2]
        if conditions.actions is None:
            return self.no_action.expand(b, f, -1)
        embedded = self.action(conditions.actions)
        if conditions.has_action is None:
            return embedded
        return torch.where(conditions.has_action[..., None], embedded, self.no_action.to(embedded.dtype))

    def _condition(self, latents: Tensor, levels: Tensor, conditions: Conditions, action: Tensor | None) -> Tensor:
        c = self.level(level_features(self.path.time(levels.float())).to(latents.dtype))
        if action is not None:
            c = c + action
        if self.camera is not None and conditions.camera is not None:
            c = c + self.camera(conditions.camera)
        if self.text_pool is not None and conditions.text is not None:
            c = c + self.text_pool(conditions.text.mean(dim=1))[:, None]
        return c

    def _blocks(
        self, x: Tensor, c: Tensor, layout: Layout, text_keys: list[tuple[Tensor, Tensor] | None]
    ) -> tuple[Tensor, Tensor]:
        """Tokens as the layout arranges them, and conditions per frame, to hidden tokens and their flat patches."""
        shared = c if self.modulation is None else self.modulation(c).unflatten(-1, (HALVES * PARTS, -1))
        for i, (block, keys) in enumerate(zip(self._stack, text_keys, strict=True)):
            layout.block = i
            x = block(x, shared, layout, keys)
        shift, scale = layout.per_token(self.modulation_out(c).unflatten(-1, (2, -1))).unbind(-2)
        return x, self.unpatchify(modulate(self.norm_out(x), shift, scale))

    def _output(self, tokens: Tensor, out: Tensor, latents: Tensor) -> Output:
        """Hidden tokens (..., F, N, D) and flat patches beside them as what the network says of each frame."""
        p = self.config.patch
        patches = out[..., : out.shape[-2] - self.tokens_beside_patches, :]
        prediction = rearrange(
            patches, "... F (h w) (p q C) -> ... F C (h p) (w q)", p=p, q=p, h=latents.shape[-2] // p
        )
        return Output(prediction=prediction, hidden=tokens)

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


def _check_clips(clips: Sequence[Clip]) -> None:
    if not clips:
        raise FramesError(expected="at least one clip", got="none", remedy="Pass some.")
    if len({c.conditions.text is None for c in clips}) > 1:
        raise TextError(
            expected="text for every clip or for none",
            got="some of each",
            remedy="Encode None for clips without text: `encode_text([None])`.",
        )


def causal_mask(num_frames: int, window: int, *, device: torch.device | None = None) -> Tensor:
    """(F, F) boolean: frame i sees frames i - window + 1 to i."""
    i = torch.arange(num_frames, device=device)
    gap = i[:, None] - i[None]
    return (gap >= 0) & (gap < window)


def two_stream_mask(num_frames: int, window: int, *, device: torch.device | None = None) -> Tensor:
    """(2F, 2F) boolean for a clean stream followed by a noisy stream of the same frames.

    A clean frame sees the clean past and itself; a noisy frame sees the clean past and itself. That is what a cached
    step sees, for every frame of a sequence at once.
    """
    clean = causal_mask(num_frames, window, device=device)
    itself = torch.eye(num_frames, dtype=torch.bool, device=device)
    top = torch.cat((clean, torch.zeros_like(clean)), dim=1)
    return torch.cat((top, torch.cat((clean & ~itself, itself), dim=1)))
