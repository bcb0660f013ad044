"""The parts of training against closed forms and independent computations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from worldsim.config import ForecastConfig, ModelConfig, TextConfig, TokenizerConfig
from worldsim.data import Dataset
from worldsim.errors import ConfigError, TrainingError, UnknownNameError
from worldsim.nn.cache import RingCache
from worldsim.nn.masks import causal_mask
from worldsim.sizes import SIZES, cost, size, training_cost
from worldsim.tokenizer import build_tokenizer
from worldsim.training import DynamicsConfig, OptimiserConfig, TrainConfig
from worldsim.training.batches import LatentBatch
from worldsim.training.checks import check_corpus
from worldsim.training.corpus import Corpus, Turns
from worldsim.training.data import LatentSource, cached_latents, split_episodes, window_weights
from worldsim.training.draws import generators_for
from worldsim.training.first_frames import FirstFrames, due
from worldsim.training.learner import Learner
from worldsim.training.losses import dynamics_loss
from worldsim.training.presets import PRESETS, preset
from worldsim.training.summary import summary_error, summary_of
from worldsim.training.team import Team
from worldsim.transformer import Conditions, VideoDiT
from worldsim.video import to_model

ALONE = Team(device=torch.device("cpu"))


def small_model(**changes: object) -> VideoDiT:
    torch.manual_seed(0)
    settings = {"latent_channels": 4, "width": 16, "depth": 2, "heads": 2, "window": 3, "action_dim": 5}
    model = VideoDiT(ModelConfig(**(settings | {"text": TextConfig(buckets=32, slots=2)} | changes)))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch(b: int = 2, f: int = 5) -> LatentBatch:
    g = torch.Generator().manual_seed(1)
    known = torch.ones(b, f, dtype=torch.bool)
    known[:, 0] = False
    return LatentBatch(
        latents=torch.randn(b, f, 4, 4, 4, generator=g),
        actions=torch.rand(b, f, 5, generator=g),
        rewards=torch.randn(b, f, generator=g),
        terminated=torch.rand(b, f, generator=g) > 0.5,
        known=known,
        texts=["a red ball"] * b,
    )


@pytest.mark.parametrize("bidirectional", [0.0, 1.0])
def test_every_weight_that_a_loss_uses_gets_a_gradient(bidirectional: float) -> None:
    model = small_model()
    config = DynamicsConfig(bidirectional=bidirectional, drop_text=0.0, drop_action=0.0)
    loss, _ = dynamics_loss(model, batch(), config, torch.Generator().manual_seed(0), feedback=True)
    loss.backward()
    unused = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    heads = {n for n, _ in model.named_parameters() if n.startswith("outcome")}
    assert unused - {"text.null"} == (heads if bidirectional else set())


def test_the_loss_is_a_pure_function_of_its_generator() -> None:
    model, config = small_model(), DynamicsConfig()
    losses = [
        dynamics_loss(model, batch(), config, generators_for(0, "x", step, range(2)), feedback=False)[0].item()
        for step in (4, 4, 5)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_perfect_guess_costs_nothing_and_the_weight_is_one_over_level_squared() -> None:
    class Oracle(VideoDiT):
        """Predicts the clean latents plus a constant."""

        def forward(self, latents: torch.Tensor, *args: object, **kwargs: object):
            out = super().forward(latents, *args, **kwargs)
            repeat = latents.shape[1] // given.latents.shape[1]
            return type(out)(prediction=given.latents.repeat(1, repeat, 1, 1, 1) + self.offset, hidden=out.hidden)

    given = batch()
    model = Oracle(ModelConfig(latent_channels=4, width=16, depth=1, heads=2, window=3, action_dim=5, heads_out=False))
    model.offset = 0.0
    quiet = DynamicsConfig(bidirectional=0.0, pure_noise=1.0)
    assert float(dynamics_loss(model, given, quiet, torch.Generator(), feedback=False)[0]) == 0.0
    model.offset = 0.5  # at level 1 the weight is 1, so the loss is the squared offset
    loss = float(dynamics_loss(model, given, quiet, torch.Generator(), feedback=False)[0])
    assert loss == pytest.approx(0.25, rel=1e-5)


def test_a_lone_frame_is_denoised_as_the_first_of_a_window() -> None:
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    class Recorder(VideoDiT):
        def forward(self, latents: torch.Tensor, levels: torch.Tensor, *args: object, **kwargs: object):
            out = super().forward(latents, levels, *args, **kwargs)
            calls.append((latents, levels, out.prediction))
            return out

    model = small_model()
    model.__class__ = Recorder
    texts = [f"a {colour} ball" for colour in ("red", "blue", "green", "pink", "black", "red")]
    lone = replace(batch(3, 2), lone=True, texts=texts, known=torch.zeros(3, 2, dtype=torch.bool))
    quiet = DynamicsConfig(drop_text=0.0, pure_noise=1.0, bidirectional=1.0)
    loss, parts = dynamics_loss(model, lone, quiet, torch.Generator().manual_seed(0), feedback=True)
    noised, levels, said = calls[0]
    assert noised.shape[:2] == (6, 1)
    assert (levels < 1.0).all()  # pure noise is but the first of many steps
    window = torch.cat((noised, torch.randn(6, 3, 4, 4, 4)), dim=1)
    has_action = torch.tensor([[False, True, True, True]]).expand(6, 4)
    conditions = Conditions(actions=torch.rand(6, 4, 5), has_action=has_action, text=model.encode_text(texts))
    first = VideoDiT.forward(
        model,
        window,
        torch.cat((levels, torch.rand(6, 3)), dim=1),
        conditions,
        positions=torch.arange(4),
        mask=causal_mask(4, 3),
    ).prediction[:, :1]
    torch.testing.assert_close(said, first, rtol=1e-4, atol=1e-5)
    errors = (first - lone.latents.flatten(0, 1)[:, None]).square().mean(dim=(1, 2, 3, 4))
    weights = levels[:, 0].clamp(min=quiet.weight_floor) ** -2
    assert loss.item() == pytest.approx((weights * errors).mean().item(), rel=1e-4)
    assert set(parts) == {"first_denoising", "first_x_error"}


def test_updates_learn_what_they_are_shown(tmp_path: Path) -> None:
    settings = OptimiserConfig(steps=120, batch_size=2, rate=5e-3, warmup=5)
    learner = Learner(small_model(), dynamics_loss, settings, tmp_path, ALONE)
    quiet = DynamicsConfig(bidirectional=0.0, drop_text=0.0, drop_action=0.0, context_clean=1.0, pure_noise=1.0)
    losses = []
    for _ in range(120):
        loss, parts = learner.objective(batch(), quiet, generators_for(0, "fixed", 0, range(2)), feedback=False)
        loss.backward()
        learner.update()
        losses.append(float(parts["x_error"]))
    # Unit-variance latents leave an error of 1 to whoever predicts their mean; a memorised batch leaves much less.
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.7


def test_muon_turns_the_blocks_matrices_by_orthogonal_steps_and_leaves_the_rest_to_adamw(tmp_path: Path) -> None:
    settings = OptimiserConfig(steps=9, batch_size=2, method="muon", rate=1e-2, warmup=0, decay=0.0, weight_decay=0.0)
    learner = Learner(small_model(), dynamics_loss, settings, tmp_path, ALONE)
    before = {n: p.detach().clone() for n, p in learner.network.named_parameters()}
    quiet = DynamicsConfig(bidirectional=0.0, pure_noise=1.0)
    learner.objective(batch(), quiet, generators_for(0, "fixed", 0, range(2)), feedback=False)[0].backward()
    learned = {n for n, p in learner.network.named_parameters() if p.grad is not None and p.grad.abs().min() > 1e-5}
    learner.update()
    steps = {n: p.detach() - before[n] for n, p in learner.network.named_parameters()}
    # Five Newton-Schulz steps bring singular values near 1, between about 0.7 and 1.2 (Jordan 2024).
    value = steps["blocks.0.spatial.qkv.weight"]
    singular = torch.linalg.svdvals(value) / (0.2 * 1e-2 * max(value.shape) ** 0.5)
    assert 0.4 < float(singular[:4].min()) < float(singular.max()) < 1.3
    # AdamW's first step is the rate in the direction of the gradient's sign.
    others = learned - {n for n in steps if n.startswith("blocks.") and n.endswith("weight")}
    assert others
    for name in others:
        torch.testing.assert_close(steps[name].abs(), torch.full_like(steps[name], 1e-2), rtol=1e-2, atol=0.0)


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    config = OptimiserConfig(steps=100, batch_size=1, rate=1.0, warmup=10, decay=0.2)
    assert config.rate_at(0) == pytest.approx(0.1)
    assert config.rate_at(9) == config.rate_at(50) == config.rate_at(80) == 1.0
    assert config.rate_at(90) == pytest.approx(0.5)
    assert config.rate_at(99) == pytest.approx(0.05)


def test_the_moving_average_follows_its_recurrence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    settings = OptimiserConfig(steps=5, batch_size=1, warmup=1, ema=0.3)
    learner = Learner(network, lambda net, x: (net(x).square().sum(), {}), settings, tmp_path, ALONE)
    expected = network.weight.detach().clone()
    for step in range(5):
        learner.objective(torch.ones(1, 3))[0].backward()
        learner.update()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.weight.detach()
    torch.testing.assert_close(learner.average["weight"], expected)
    with learner.averaged():
        torch.testing.assert_close(network.weight.detach(), expected)
    assert not torch.allclose(network.weight.detach(), expected)


@pytest.mark.parametrize("stride", [1, 4])
def test_cached_latents_are_what_the_tokenizer_says(
    dataset: Dataset, config: TrainConfig, tmp_path: Path, stride: int
) -> None:
    config = replace(config, precision="float32", tokenizer=replace(config.tokenizer, temporal_stride=stride))
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config.tokenizer).eval()
    latents = cached_latents(dataset, tokenizer, tmp_path, config)
    episode = dataset.episode(1)
    frames = episode.frames[: 1 + 4 * 2]
    with torch.no_grad():
        expected = tokenizer.encode(to_model(frames[None]))[0].numpy()
    rows = latents[dataset.starts[1] + np.arange(0, len(frames), stride)]
    np.testing.assert_allclose(rows, expected, atol=2e-3)  # float16 on disk
    again = cached_latents(dataset, tokenizer, tmp_path, config)
    np.testing.assert_array_equal(again, latents)


def test_windows_carry_the_actions_and_rewards_that_led_to_each_frame(
    dataset: Dataset, config: TrainConfig, tmp_path: Path
) -> None:
    tokenizer = build_tokenizer(config.tokenizer).eval()
    source = LatentSource(dataset, cached_latents(dataset, tokenizer, tmp_path, config), config, reward_scale=2.0)
    found = source.batch(0, torch.device("cpu"))
    raw = source._train.batch(0)
    for row in range(len(found.latents)):
        start = raw["start"][row]
        episode = dataset.episode(int(raw["episode"][row]))
        actions = np.asarray(episode.actions)[start : start + source.length - 1]
        np.testing.assert_array_equal(found.actions[row, 1:].argmax(-1).numpy(), actions)
        np.testing.assert_allclose(
            found.rewards[row, 1:].numpy(), episode.rewards[start : start + source.length - 1] / 2.0
        )
    assert not found.known[:, 0].any()


def test_first_frames_are_drawn_one_by_one_with_their_own_captions(dataset: Dataset, config: TrainConfig) -> None:
    latents = np.arange(dataset.num_frames, dtype=np.float16)[:, None, None, None] * np.ones((4, 2, 2), np.float16)
    source, cpu = FirstFrames(dataset, latents, config, camera=False), torch.device("cpu")
    held = split_episodes(dataset, config.held_out)[1]
    windows = LatentSource(dataset, latents, config, 1.0).batch(0, cpu)

    def owners(batch: LatentBatch) -> np.ndarray:
        frames = batch.latents[..., 0, 0, 0].flatten().numpy().astype(int)
        found = np.searchsorted(dataset.starts, frames, side="right") - 1
        assert batch.texts == [dataset.captions[i] for i in found]
        assert batch.lone
        assert not batch.known.any()
        return found

    seen = set()
    for step in range(10):
        batch = source.batch(step, cpu)
        assert batch.latents.shape[:2] == windows.latents.shape[:2]
        seen |= set(owners(batch).tolist())
        parts = [source.batch(step, cpu, range(1)), source.batch(step, cpu, range(1, len(batch.latents)))]
        torch.testing.assert_close(torch.cat([p.latents for p in parts]), batch.latents, rtol=0, atol=0)
    assert seen == set(range(len(dataset))) - set(held.tolist())
    assert set(owners(source.held_out(0, cpu)).tolist()) == set(held.tolist())
    assert [due(step, 0.25) for step in range(8)] == [False, False, False, True] * 2
    assert not any(due(step, 0.0) for step in range(100))


def test_batches_by_turns_come_from_each_source_as_often_as_its_share() -> None:
    class Numbered:
        def __init__(self, name: str, num_windows: int) -> None:
            self.name, self.num_windows = name, num_windows

        def batch(self, step: int, device: torch.device, rows: range | None = None) -> str:
            return f"{self.name}:{rows}"

        def describe(self, step: int, rows: range | None = None) -> str:
            return self.name

    turns, cpu = Turns([Numbered("a", 1), Numbered("b", 3)], seed=0), torch.device("cpu")
    drawn = [turns.describe(step) for step in range(4000)]
    assert drawn.count("b") / 4000 == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / 4000))
    for step in range(20):
        assert turns.batch(step, cpu, range(2)) == [f"{drawn[step]}:range(0, 2)"]


def test_windows_rich_in_events_are_trained_on_more_often(dataset: Dataset, config: TrainConfig) -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(0, 1e-3, (dataset.num_frames, 4, 4, 4)).astype(np.float32)
    jump = int(dataset.starts[1]) + 8
    latents[jump : int(dataset.starts[2])] += 1.0
    share, size = 0.8, 4000
    rich = replace(
        config,
        dynamics=replace(config.dynamics, events=share),
        optimiser=replace(config.optimiser, batch_size=size),
    )
    weights = window_weights(dataset, latents, share)
    assert weights is not None
    heavy = np.flatnonzero(weights > 1.0)
    assert jump in heavy  # beside some of the quiet frames, which make up 5 % together
    source = LatentSource(dataset, latents, rich, 1.0)
    raw = source._train.batch(3)
    begins = dataset.starts[raw["episode"]] + raw["start"]
    drawn = np.mean((begins <= jump) & (jump < begins + 5))
    sums = np.convolve(weights, np.ones(5), "valid")
    allowed = np.concatenate(
        [s + np.arange(n - 4) for s, n in zip(dataset.starts[:4], dataset.lengths[:4], strict=True)]
    )
    hit = allowed[(allowed <= jump) & (jump < allowed + 5)]
    expected = sums[hit].sum() / sums[allowed].sum()
    assert expected > 2 * len(hit) / len(allowed)
    assert drawn == pytest.approx(expected, abs=4 * np.sqrt(expected / size))
    again = LatentSource(dataset, latents, rich, 1.0).batch(3, torch.device("cpu"))
    torch.testing.assert_close(again.latents, source.batch(3, torch.device("cpu")).latents, rtol=0, atol=0)


def test_mismatched_channels_are_refused(dataset: Dataset, config: TrainConfig) -> None:
    wrong = replace(config, tokenizer=TokenizerConfig(latent_channels=6))
    with pytest.raises(TrainingError, match="latent_channels"):
        check_corpus(wrong, Corpus([dataset]))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_the_way_to_disk(name: str) -> None:
    for start in (None, "a/checkpoint"):
        config = preset(name, "somewhere", start=start)
        assert TrainConfig.from_dict(config.to_dict()) == config
        assert config.start == (start or "")
        assert start is None or config.dynamics.feedback > 0


def test_unknown_presets_and_fields_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'bounce'"):
        preset("bonce", "x")
    with pytest.raises(UnknownNameError, match="'precision'"):
        TrainConfig.from_dict({"data": "x", "presision": "float32"})
    with pytest.raises(ConfigError):
        OptimiserConfig(steps=0, batch_size=1)


@pytest.mark.parametrize("name", ["1m", "4m"])
def test_the_cost_of_a_model_is_what_pytorch_counts(name: str) -> None:
    config = replace(size(name), action_dim=5)
    model = VideoDiT(config).eval().requires_grad_(requires_grad=False)
    expected = cost(config, latent_grid=(8, 8))
    assert expected.parameters == sum(p.numel() for p in model.parameters())
    cache = RingCache.empty(
        1,
        blocks=config.depth,
        tokens=expected.tokens,
        window=config.window,
        heads=config.heads,
        head_dim=config.width // config.heads,
        like=model.patchify.weight,
    )
    assert expected.cache_bytes == cache.keys.nbytes + cache.values.nbytes
    # The counter knows products, not the fused attention kernel of CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        text = model.encode_text(["a red ball"])
        keys = model.text_keys(text)
        for_text = counter.get_total_flops()
        plan = model.plan(torch.zeros(1), Conditions(text=text), cache, keys)
        model.step(torch.zeros(1, 1, 16, 8, 8), plan, 0, cache)
        counted = counter.get_total_flops() - for_text
    # The level embedding and pooled text are left out of the formula.
    assert counted == pytest.approx(expected.flops_per_pass, rel=0.03)


def test_the_cost_of_a_forecast_is_what_pytorch_counts() -> None:
    config = ModelConfig(latent_channels=6, action_dim=5, forecast=ForecastConfig(frames=3, width=24, depth=2))
    model = VideoDiT(config).eval().requires_grad_(requires_grad=False)
    expected = cost(config, latent_grid=(8, 4))
    assert expected.parameters == sum(p.numel() for p in model.parameters())
    assert model.forecast is not None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.forecast(torch.zeros(1, 1, 3, 6, 8, 4), Conditions())
    assert counter.get_total_flops() == expected.flops_per_forecast


def test_training_cost_follows_from_what_autograd_and_the_counter_say() -> None:
    config = replace(size("1m"), action_dim=5)
    model, frames = VideoDiT(config), 20
    given = LatentBatch(
        latents=torch.randn(1, frames, 16, 8, 8),
        actions=torch.rand(1, frames, 5),
        rewards=torch.zeros(1, frames),
        terminated=torch.zeros(1, frames, dtype=torch.bool),
        known=torch.ones(1, frames, dtype=torch.bool),
        texts=["a red ball"],
    )
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    quiet = DynamicsConfig(bidirectional=0.0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        dynamics_loss(model, given, quiet, torch.Generator().manual_seed(0), feedback=False)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)
    expected = training_cost(config, latent_grid=(8, 8), length=frames, feedback=0.0)
    assert held == pytest.approx(expected.window_bytes, rel=0.1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss, _ = dynamics_loss(model, given, quiet, torch.Generator().manual_seed(0), feedback=False)
        loss.backward()
    # The estimate leaves out what the mask hides (here 20 + 20 keys instead of up to 16), text and embeddings.
    assert counter.get_total_flops() / frames == pytest.approx(expected.flops / expected.frames, rel=0.15)
    assert expected.days == pytest.approx(expected.flops / 8 / 989e12 / 0.4 / 24 / 3600)


def test_sizes_span_a_million_to_a_billion() -> None:
    counts = [cost(size(name), latent_grid=(8, 8)).parameters for name in SIZES]
    assert counts == sorted(counts)
    assert 0.8e6 < counts[0] < 2e6
    assert 0.8e9 < counts[-1] < 1.3e9


def test_a_summary_tells_what_a_frame_holds_and_not_where() -> None:
    draw = torch.Generator().manual_seed(0)
    frames = torch.randn(3, 4, 6, 5, generator=draw)
    moved = frames.flatten(2)[:, :, torch.randperm(30, generator=draw)].unflatten(2, (5, 6))
    torch.testing.assert_close(summary_of(moved, 16), summary_of(frames, 16))
    # Of noise it is nothing, give or take what is due to chance: its variance does not depend on the number of places.
    for side in (8, 32):
        noise = summary_of(torch.randn(400, 4, side, side, generator=draw), 64)
        assert noise.mean(dim=0).abs().max() < 5 * noise.std() / 400**0.5
        assert 0.2 < noise.var() < 1.0
    # Frames with the same mean are told apart by how their places are distributed, as shapes of one colour are.
    flat, split = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    split[..., ::2] = -1.0
    assert (summary_of(flat, 64) - summary_of(split, 64)).square().mean() > 0.5
    spread, expected = torch.tensor([1.0, 0.0]), summary_of(frames, 2)
    assert float(summary_error(expected + spread, frames)) == pytest.approx(0.5)


def test_texts_learn_to_say_what_their_first_frames_hold() -> None:
    """Latents that are a colour all over."""
    config = ModelConfig(latent_channels=2, width=16, depth=1, heads=2, text=TextConfig(buckets=64, slots=2, summary=8))
    torch.manual_seed(0)
    model = VideoDiT(config)
    assert model.text_summary is not None
    colours = {"a red room": (0.5, -0.25), "a blue room": (-0.5, 0.75)}
    latents = torch.tensor(list(colours.values()))[None, :, :, None, None].expand(1, 2, 2, 4, 4).clone()
    unknown = torch.zeros(1, 2)
    batch = LatentBatch(
        latents=latents,
        actions=None,
        rewards=unknown,
        terminated=unknown.bool(),
        known=unknown.bool(),
        texts=list(colours),
        lone=True,
    )
    objective = DynamicsConfig(drop_text=0.0, summary_weight=1.0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    errors = []
    for step in range(150):
        generator = torch.Generator().manual_seed(step)
        loss, parts = dynamics_loss(model, batch, objective, generator, feedback=False)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(parts["first_summary"]))
        assert float(loss.detach()) == pytest.approx(float(parts["first_denoising"]) + errors[-1], rel=1e-5)
    with torch.no_grad():
        text = model.encode_text(list(colours))
        assert text is not None
        said = model.text_summary(text.mean(dim=1))
    torch.testing.assert_close(said, summary_of(latents[0], 8), rtol=0, atol=0.2)
    assert errors[-1] < 0.05 * errors[0]
