"""The objective of the transformer, as a pure function of (model, batch, generator).

Training is inference: a clean stream and a noisy stream of the same frames run side by side (`two_stream_mask`), so
that each noisy frame is denoised against exactly the past that a cached step sees.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from worldsim.nn.forecast import frames_before, told
from worldsim.nn.masks import two_stream_mask
from worldsim.noise import clean_from_prediction, mix, source
from worldsim.training.batches import LatentBatch, mean_over_windows
from worldsim.training.config import DynamicsConfig
from worldsim.training.draws import Draw, Source, divided
from worldsim.training.summary import summary_error
from worldsim.transformer import Clips, Conditions, Output, VideoDiT


def dynamics_loss(
    model: VideoDiT,
    batch: LatentBatch | Sequence[LatentBatch],
    config: DynamicsConfig,
    generator: Source,
    *,
    feedback: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one update and its parts.

    Args:
        model: The transformer.
        batch: Windows; several groups of them where sizes or durations differ, which are packed without padding. Every
            window counts alike: the loss is the mean of what the windows would give one by one.
        config: The objective.
        generator: Source of all randomness, on the CPU; `generators_for` gives one that is independent of how the batch
            is divided among processes.
        feedback: Whether part of the context is replaced by the model's own prediction.
    """
    groups = [batch] if isinstance(batch, LatentBatch) else list(batch)
    sizes = [len(g.latents) for g in groups]
    draws = [Draw(own, g.latents.device) for own, g in zip(divided(generator, sizes), groups, strict=True)]
    if groups[0].lone:
        return _first_frame_loss(model, groups, config, draws)
    if draws[0].one() < config.bidirectional:
        return _bidirectional_loss(model, groups, config, draws)
    return _causal_loss(model, groups, config, draws, feedback=feedback)


def _causal_loss(
    model: VideoDiT, groups: Sequence[LatentBatch], config: DynamicsConfig, draws: Sequence[Draw], *, feedback: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    streams = [_TwoStreams(model, batch, config, draw) for batch, draw in zip(groups, draws, strict=True)]

    def run(levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        entered = [s.entered(own) for s, own in zip(streams, levels, strict=True)]
        outputs = _outputs(model, entered, two_streams=True)
        return [s.read(out, own) for s, out, own in zip(streams, outputs, levels, strict=True)]

    if feedback:
        own = [_own_frames(s.draw, *s.clean.shape[:2])[..., None, None, None] for s in streams]
        for _ in range(1 + int(draws[0].one() * config.feedback_depth)):
            with torch.no_grad():
                guesses = run([torch.ones_like(s.levels) for s in streams])
            for s, mine, (guess, _) in zip(streams, own, guesses, strict=True):
                s.context = torch.where(mine, guess, s.clean)
    found = []
    for s, batch, (guess, hidden) in zip(streams, groups, run([s.levels for s in streams]), strict=True):
        loss, parts = _denoising_loss(guess, s.clean, s.levels, config)
        if model.config.heads_out:
            extra, extra_parts = _outcome_loss(model, hidden, batch, config)
            loss, parts = loss + extra, parts | extra_parts
        found.append((loss, parts))
    return mean_over_windows(found, groups)


class _TwoStreams:
    """Windows of one shape as a clean and a noisy stream, with all that is drawn for them.

    Attributes:
        context: The clean stream before noise, (B, F, C, h, w): the true frames until one replaces them.
        levels: (B, F) noise levels of the noisy stream.
    """

    def __init__(self, model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: Draw) -> None:
        self.model, self.path, self.config, self.draw = model, model.path, model.config, draw
        self.clean = self.context = batch.latents
        b, f = self.clean.shape[:2]
        self.single = _conditions(model, batch, config, draw)
        self.conditions = _twice(self.single)
        self.positions = torch.arange(f, device=self.clean.device)
        self.levels = _target_levels(config, draw, b, f)
        context_levels = config.context_noise * draw.uniform(b, f)
        self.context_levels = context_levels * (draw.uniform(b, 1) >= config.context_clean)

    def entered(self, levels: Tensor) -> Clips:
        """Both streams, noise drawn anew, the noisy one at these levels."""
        noised = mix(self.path, self.context, self.draw.normal(self.clean), self.context_levels)
        begin, expected = self._begin(noised)
        self.target = mix(self.path, self.clean, begin, levels)
        if expected is not None:
            expected = torch.cat((torch.zeros_like(expected), expected), dim=1)
        return Clips(
            latents=torch.cat((noised, self.target), dim=1),
            levels=torch.cat((self.context_levels, levels), dim=1),
            positions=self.positions.repeat(2),
            conditions=replace(self.conditions, expected=expected),
        )

    def _begin(self, noised: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where the paths of the noisy stream begin, given the clean one as it enters, and what is expected of it."""
        noise, seen = self.draw.normal(self.clean), self.positions > 0
        if self.model.forecast is None or self.config.source != "forecast":
            return source(self.config, noise, self.context.roll(1, dims=1), seen), None
        with torch.no_grad():
            forecast, spread = self.model.forecast(frames_before(noised, self.model.forecast.frames), self.single)
        return source(self.config, noise, forecast, seen, spread), told(forecast, spread, seen)

    def read(self, out: Output, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents that the noisy stream says, (B, F, C, h, w), and the clean stream's hidden tokens."""
        f = len(self.positions)
        prediction = out.prediction[:, f:].float()
        guess = clean_from_prediction(self.path, self.config.prediction, prediction, self.target, levels)
        return guess, out.hidden[:, :f]


def _bidirectional_loss(
    model: VideoDiT, groups: Sequence[LatentBatch], config: DynamicsConfig, draws: Sequence[Draw]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Every frame sees every frame; some are given clean, the others are denoised."""
    entered, given = [], []
    for batch, draw in zip(groups, draws, strict=True):
        clean = batch.latents
        b, f = clean.shape[:2]
        given.append(draw.uniform(b, f) < 0.5 * draw.uniform(b, 1))
        levels = torch.where(given[-1], 0.0, _target_levels(config, draw, b, f))
        x = mix(model.path, clean, draw.normal(clean), levels)
        positions, conditions = torch.arange(f, device=clean.device), _conditions(model, batch, config, draw)
        entered.append(Clips(latents=x, levels=levels, positions=positions, conditions=conditions))
    found = []
    outputs = _outputs(model, entered, two_streams=False)
    for batch, x, known, out in zip(groups, entered, given, outputs, strict=True):
        kind = model.config.prediction
        guess = clean_from_prediction(model.path, kind, out.prediction.float(), x.latents, x.levels)
        found.append(_denoising_loss(guess, batch.latents, x.levels, config, keep=~known))
    loss, parts = mean_over_windows(found, groups)
    return loss, {f"bidirectional_{k}": v for k, v in parts.items()}


def _first_frame_loss(
    model: VideoDiT, groups: Sequence[LatentBatch], config: DynamicsConfig, draws: Sequence[Draw]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Every frame is denoised as a world's first is: from its text and noise alone."""
    # In many steps, of which pure noise is only the first.
    config = replace(config, pure_noise=0.0)
    entered = [_lone_frames(model, batch, config, draw) for batch, draw in zip(groups, draws, strict=True)]
    found = []
    for batch, x, out in zip(groups, entered, _outputs(model, entered, two_streams=False), strict=True):
        kind = model.config.prediction
        guess = clean_from_prediction(model.path, kind, out.prediction.float(), x.latents, x.levels)
        levels = x.levels.reshape(batch.latents.shape[:2])
        loss, parts = _denoising_loss(guess.reshape_as(batch.latents), batch.latents, levels, config)
        if model.text_summary is not None and x.conditions.text is not None:
            extra = summary_error(model.text_summary(x.conditions.text.mean(dim=1)), batch.latents.flatten(0, 1))
            loss, parts = loss + config.summary_weight * extra, parts | {"summary": extra.detach()}
        found.append((loss, parts))
    loss, parts = mean_over_windows(found, groups)
    return loss, {f"first_{k}": v for k, v in parts.items()}


def _lone_frames(model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: Draw) -> Clips:
    """A batch of lone frames, noised, as B * F clips of one frame each."""
    b, f = batch.latents.shape[:2]
    levels = _target_levels(config, draw, b, f)
    noised = mix(model.path, batch.latents, draw.normal(batch.latents), levels)
    kept = (draw.uniform(b, f) >= config.drop_text).flatten().tolist()
    unknown = torch.zeros(b * f, 1, dtype=torch.bool, device=noised.device)

    def single(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.flatten(0, 1)[:, None]

    return Clips(
        latents=noised.flatten(0, 1)[:, None],
        levels=levels.reshape(b * f, 1),
        positions=torch.zeros(1, dtype=torch.long, device=noised.device),
        conditions=Conditions(
            actions=single(batch.actions),
            has_action=unknown,
            text=model.encode_text([t if k else None for t, k in zip(batch.texts, kept, strict=True)]),
            camera=single(batch.camera),
            has_camera=None if batch.camera is None else unknown,
        ),
    )


def _outputs(model: VideoDiT, groups: Sequence[Clips], *, two_streams: bool) -> list[Output]:
    """One pass of the model: windows of one shape as they are, windows of several shapes packed."""
    if len(groups) > 1:
        return model.forward_mixed(groups, time="two_streams" if two_streams else "bidirectional")
    only = groups[0]
    frames, device = only.latents.shape[1], only.latents.device
    mask = two_stream_mask(frames // 2, model.config.window, device=device) if two_streams else None
    return [model(only.latents, only.levels, only.conditions, positions=only.positions, mask=mask)]


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
    reward, ended = model.outcome_losses(hidden, batch.rewards, batch.terminated)
    known = batch.known.float()
    count = known.sum().clamp(min=1.0)
    reward_loss, termination_loss = (reward * known).sum() / count, (ended * known).sum() / count
    loss = config.reward_weight * reward_loss + config.termination_weight * termination_loss
    return loss, {"reward": reward_loss.detach(), "termination": termination_loss.detach()}


def _own_frames(draw: Draw, b: int, f: int) -> Tensor:
    """(B, F) boolean: from some frame of each window on, the context is the model's own, as in a rollout."""
    first = 1 + (f * draw.uniform(b, 1)).long()
    return torch.arange(f, device=first.device) >= first


def _conditions(model: VideoDiT, batch: LatentBatch, config: DynamicsConfig, draw: Draw) -> Conditions:
    b, f = batch.latents.shape[:2]
    has_action = (draw.uniform(b, 1) >= config.drop_action).expand(b, f).clone()
    has_action[:, 0] = False
    kept = (draw.uniform(b) >= config.drop_text).tolist()
    texts = [t if k else None for t, k in zip(batch.texts, kept, strict=True)]
    has_camera = None
    if batch.camera is not None:
        has_camera = (draw.uniform(b, 1) >= config.drop_camera).expand(b, f).clone()
        has_camera[:, 0] = False
    return Conditions(
        actions=batch.actions,
        has_action=has_action,
        text=model.encode_text(texts),
        camera=batch.camera,
        has_camera=has_camera,
    )


def _twice(conditions: Conditions) -> Conditions:
    def double(x: Tensor | None) -> Tensor | None:
        return None if x is None else torch.cat((x, x), dim=1)

    return Conditions(
        actions=double(conditions.actions),
        has_action=double(conditions.has_action),
        text=conditions.text,
        camera=double(conditions.camera),
        has_camera=double(conditions.has_camera),
    )


def _target_levels(config: DynamicsConfig, draw: Draw, b: int, f: int) -> Tensor:
    logits = config.level_mean + config.level_std * draw.normal_of(b, f)
    return torch.where(draw.uniform(b, f) < config.pure_noise, 1.0, torch.sigmoid(logits))
