"""The objective of the transformer, as a pure function of (model, batch, generator).

Training is inference: a clean stream and a noisy stream of the same frames run side by side (`two_stream_mask`), so
that each noisy frame is denoised against exactly the past that a cached step sees.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worldsim.nn.masks import two_stream_mask
from worldsim.noise import clean_from_prediction, mix, source
from worldsim.training.config import DynamicsConfig
from worldsim.training.draws import Source, normal, shared_source, uniform
from worldsim.transformer import Conditions, VideoDiT


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """A batch of windows.

    Attributes:
        latents: (B, F, C, h, w) standardised.
        actions: (B, F, A), `actions[:, i]` led to frame i; row 0 is unused.
        rewards: (B, F), reward on arriving at frame i, in units of the dataset's spread.
        terminated: (B, F) boolean.
        known: (B, F) boolean, whether reward and termination of frame i are known (not for the first frame).
        texts: Captions, None for none.
    """

    latents: Tensor
    actions: Tensor | None
    rewards: Tensor
    terminated: Tensor
    known: Tensor
    texts: list[str | None]


def dynamics_loss(
    model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, generator: Source, *, feedback: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one update and its parts.

    Args:
        model: The transformer.
        batch: Windows.
        config: The objective.
        generator: Source of all randomness, on the CPU; `generators_for` gives one that is independent of how the batch
            is divided among processes.
        feedback: Whether part of the context is replaced by the model's own prediction.
    """
    draw = _Draw(generator, batch.latents.device)
    if draw.one() < config.bidirectional:
        return _bidirectional_loss(model, batch, config, draw)
    return _causal_loss(model, batch, config, draw, feedback=feedback)


def _causal_loss(
    model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: "_Draw", *, feedback: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    clean = batch.latents
    b, f = clean.shape[:2]
    conditions = _conditions(model, batch, config, draw)
    doubled = _twice(conditions)
    positions = torch.arange(f, device=clean.device).repeat(2)
    mask = two_stream_mask(f, model.config.window, device=clean.device)
    has_previous = torch.arange(f, device=clean.device) > 0
    levels = _target_levels(config, draw, b, f)
    context_levels = config.context_noise * draw.uniform(b, f)
    context_levels = context_levels * (draw.uniform(b, 1) >= config.context_clean)

    def run(context: Tensor, target_levels: Tensor) -> tuple[Tensor, Tensor]:
        noised = mix(model.path, context, draw.normal(clean), context_levels)
        begin = source(model.config, draw.normal(clean), context.roll(1, dims=1), has_previous)
        target = mix(model.path, clean, begin, target_levels)
        out = model(
            torch.cat((noised, target), dim=1),
            torch.cat((context_levels, target_levels), dim=1),
            doubled,
            positions=positions,
            mask=mask,
        )
        guess = clean_from_prediction(
            model.path, model.config.prediction, out.prediction[:, f:].float(), target, target_levels
        )
        return guess, out.hidden[:, :f]

    context = clean
    if feedback:
        own = _own_frames(draw, b, f)[..., None, None, None]
        for _ in range(1 + int(draw.one() * config.feedback_depth)):
            with torch.no_grad():
                guess, _ = run(context, torch.ones_like(levels))
            context = torch.where(own, guess, clean)
    guess, hidden = run(context, levels)
    loss, parts = _denoising_loss(guess, clean, levels, config)
    if model.config.heads_out:
        extra, extra_parts = _outcome_loss(model, hidden, batch, config)
        loss, parts = loss + extra, parts | extra_parts
    return loss, parts


def _bidirectional_loss(
    model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: "_Draw"
) -> tuple[Tensor, dict[str, Tensor]]:
    """Every frame sees every frame; some are given clean, the others are denoised."""
    clean = batch.latents
    b, f = clean.shape[:2]
    given = draw.uniform(b, f) < 0.5 * draw.uniform(b, 1)
    levels = torch.where(given, 0.0, _target_levels(config, draw, b, f))
    x = mix(model.path, clean, draw.normal(clean), levels)
    positions = torch.arange(f, device=clean.device)
    out = model(x, levels, _conditions(model, batch, config, draw), positions=positions, mask=None)
    guess = clean_from_prediction(model.path, model.config.prediction, out.prediction.float(), x, levels)
    loss, parts = _denoising_loss(guess, clean, levels, config, keep=~given)
    return loss, {f"bidirectional_{k}": v for k, v in parts.items()}


def _denoising_loss(
    guess: Tensor, clean: Tensor, levels: Tensor, config: DynamicsConfig, keep: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    error = (guess - clean.float()).square().mean(dim=(2, 3, 4))
    keep_f = torch.ones_like(error) if keep is None else keep.float()
    # A mean over each window's frames, then over windows: the mean over parts of a batch is that of the whole.
    share = keep_f / keep_f.sum(dim=1, keepdim=True).clamp(min=1.0) / len(error)
    weighted = (levels.clamp(min=config.weight_floor) ** -2 * error * share).sum()
    return weighted, {"denoising": weighted.detach(), "x_error": (error * share).sum().detach()}


def _outcome_loss(
    model: VideoDiT, hidden: Tensor, batch: LatentBatch, config: DynamicsConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    reward, logit = (x.float() for x in model.outcomes(hidden))
    known = batch.known.float()
    count = known.sum().clamp(min=1.0)
    reward_loss = ((reward - batch.rewards).square() * known).sum() / count
    ended = F.binary_cross_entropy_with_logits(logit, batch.terminated.float(), reduction="none")
    termination_loss = (ended * known).sum() / count
    loss = config.reward_weight * reward_loss + config.termination_weight * termination_loss
    return loss, {"reward": reward_loss.detach(), "termination": termination_loss.detach()}


def _own_frames(draw: "_Draw", b: int, f: int) -> Tensor:
    """(B, F) boolean: from some frame of each window on, the context is the model's own, as in a rollout."""
    first = 1 + (f * draw.uniform(b, 1)).long()
    return torch.arange(f, device=first.device) >= first


def _conditions(model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: "_Draw") -> Conditions:
    b, f = batch.latents.shape[:2]
    has_action = (draw.uniform(b, 1) >= config.drop_action).expand(b, f).clone()
    has_action[:, 0] = False
    kept = (draw.uniform(b) >= config.drop_text).tolist()
    texts = [t if k else None for t, k in zip(batch.texts, kept, strict=True)]
    return Conditions(actions=batch.actions, has_action=has_action, text=model.encode_text(texts))


def _twice(conditions: Conditions) -> Conditions:
    def double(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat((x, x), dim=1)

    return Conditions(
        actions=double(conditions.actions),
        has_action=double(conditions.has_action),
        text=conditions.text,
        camera=double(conditions.camera),
    )


def _target_levels(config: DynamicsConfig, draw: "_Draw", b: int, f: int) -> Tensor:
    logits = config.level_mean + config.level_std * draw.normal_of(b, f)
    return torch.where(draw.uniform(b, f) < config.pure_noise, 1.0, torch.sigmoid(logits))


class _Draw:
    """Random numbers drawn on the CPU, so that every device sees the same ones."""

    def __init__(self, generator: Source, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def one(self) -> float:
        return float(torch.rand((), generator=shared_source(self.generator)))

    def uniform(self, *shape: int) -> Tensor:
        return uniform(shape, self.generator).to(self.device)

    def normal_of(self, *shape: int) -> Tensor:
        return normal(shape, self.generator).to(self.device)

    def normal(self, like: Tensor) -> Tensor:
        return self.normal_of(*like.shape)
