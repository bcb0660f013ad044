"""A run that starts from another checkpoint's weights, and context that is the model's own over several frames."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import worldsim
from worldsim.checkpoint import load_checkpoint
from worldsim.config import ForecastConfig, ModelConfig
from worldsim.data import record
from worldsim.errors import ActionError, ConfigError, UnknownNameError
from worldsim.noise import path_named
from worldsim.training import TrainConfig, train
from worldsim.training.batches import LatentBatch
from worldsim.training.config import DynamicsConfig, OptimiserConfig
from worldsim.training.losses import dynamics_loss
from worldsim.training.presets import second_phase
from worldsim.transformer import Conditions, Output, VideoDiT


def test_a_run_goes_on_from_a_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    slow = replace(config.optimiser, steps=1, rate=1e-9, warmup=0)
    # What the preset says of the networks is of no account: the checkpoint's are taken.
    further = replace(config, start=str(first), optimiser=slow, model=replace(config.model, depth=1))
    second = train(further, out=tmp_path / "second", show_progress=False)
    old, new = load_checkpoint(first), load_checkpoint(second)
    assert new.model.config == old.model.config
    for name, weight in old.model.state_dict().items():
        torch.testing.assert_close(new.model.state_dict()[name], weight, rtol=0, atol=1e-7)
    assert (tmp_path / "first/checkpoint/tokenizer.safetensors").read_bytes() == (
        tmp_path / "second/checkpoint/tokenizer.safetensors"
    ).read_bytes()
    assert not (tmp_path / "second" / "tokenizer").exists()
    assert new.meta["training"]["start"] == str(first)


def test_heads_that_say_rewards_otherwise_are_learned_anew(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    slow = replace(config.optimiser, steps=1, rate=1e-9, warmup=0)
    model = replace(config.model, reward_bins=41)
    second = train(replace(config, start=str(first), optimiser=slow, model=model), out=tmp_path / "second")
    old, new = load_checkpoint(first).model, load_checkpoint(second).model
    assert new.config == replace(old.config, reward_bins=41)
    for name, weight in old.state_dict().items():
        if not name.startswith("outcome."):
            torch.testing.assert_close(new.state_dict()[name], weight, rtol=0, atol=1e-7)


def test_a_world_whose_paths_begin_elsewhere_begins_there(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    slow = replace(config.optimiser, steps=1, rate=1e-9, warmup=0)
    model = replace(config.model, source="forecast", forecast=ForecastConfig(frames=2, width=8, depth=1))
    changed = replace(config, start=str(first), optimiser=slow, model=model)
    with pytest.raises(ConfigError, match="forecast_optimiser"):  # it would never learn
        train(changed, out=tmp_path / "second")
    taught = replace(changed, forecast_optimiser=OptimiserConfig(steps=4, batch_size=4, warmup=0))
    second = train(taught, out=tmp_path / "second")
    old, new = load_checkpoint(first).model, load_checkpoint(second).model
    assert new.config == replace(old.config, source="forecast", forecast=model.forecast)
    for name, weight in new.state_dict().items():
        if name.startswith(("unpatchify.", "expected.")):
            torch.testing.assert_close(weight, torch.zeros_like(weight), rtol=0, atol=1e-7)
        elif not name.startswith("forecast."):
            torch.testing.assert_close(weight, old.state_dict()[name], rtol=0, atol=1e-7)
    # From there on it is kept, whatever the transformer learns.
    third = train(replace(changed, start=str(second), optimiser=replace(slow, rate=1e-2)), out=tmp_path / "third")
    kept = load_checkpoint(third).model.state_dict()
    for name, weight in new.state_dict().items():
        assert torch.equal(kept[name], weight) == name.startswith("forecast."), name


def test_text_that_is_to_say_summaries_is_learned_anew(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    slow = replace(config.optimiser, steps=1, rate=1e-9, warmup=0)
    assert config.model.text is not None
    model = replace(config.model, text=replace(config.model.text, summary=4))
    second = train(replace(config, start=str(first), optimiser=slow, model=model), out=tmp_path / "second")
    old, new = load_checkpoint(first).model, load_checkpoint(second).model
    assert new.config == replace(old.config, text=model.text)
    assert not torch.allclose(new.state_dict()["text.embed.weight"], old.state_dict()["text.embed.weight"], atol=1e-6)
    torch.testing.assert_close(new.patchify.weight, old.patchify.weight, rtol=0, atol=1e-7)
    # Words that say some already go on, and only how they say others is new.
    model = replace(config.model, text=replace(config.model.text, summary=6))
    third = train(replace(config, start=str(second), optimiser=slow, model=model), out=tmp_path / "third")
    later = load_checkpoint(third).model
    assert later.text_summary is not None
    assert later.text_summary.out_features == 6
    torch.testing.assert_close(
        later.state_dict()["text.embed.weight"], new.state_dict()["text.embed.weight"], rtol=0, atol=1e-7
    )


def test_other_actions_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    room = tmp_path / "room"
    record("envs:Room-v0", episodes=2, seed=0, path=room, max_steps=8, truth=False, progress=False, size=(32, 32))
    with pytest.raises(ActionError, match="dataset with"):
        train(replace(config, data=str(tmp_path / "room"), start=str(first)), out=tmp_path / "second")


def test_a_start_that_is_not_there_is_named(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="nowhere"):
        train(replace(config, start="nowhere"), out=tmp_path / "run")


class Counter(VideoDiT):
    """Predicts for each noisy frame one more than the clean stream shows in the frame before it."""

    contexts: list[torch.Tensor]

    def forward(
        self,
        latents: torch.Tensor,
        levels: torch.Tensor,
        conditions: Conditions,
        *,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        record: object = None,
    ) -> Output:
        f = latents.shape[1] // 2
        context = latents[:, :f]
        self.contexts.append(context[0, :, 0, 0, 0])
        guess = torch.cat((context[:, :1], context[:, :-1] + 1.0), dim=1)
        hidden = torch.zeros(*latents.shape[:2], 1, self.config.width)
        return Output(prediction=torch.cat((context, guess), dim=1), hidden=hidden)


def test_own_context_deepens_pass_by_pass() -> None:
    """After n passes, frame i of the context is what a rollout of min(i, n) steps says."""
    model = Counter(ModelConfig(latent_channels=4, width=16, depth=1, heads=2, window=3, heads_out=False))
    model.path, model.contexts = path_named("rectified_flow"), []
    frames, depth = 8, 3
    quiet = DynamicsConfig(bidirectional=0.0, context_noise=0.0, feedback_depth=depth)
    truth = LatentBatch(
        latents=torch.zeros(1, frames, 4, 2, 2),
        actions=None,
        rewards=torch.zeros(1, frames),
        terminated=torch.zeros(1, frames, dtype=torch.bool),
        known=torch.ones(1, frames, dtype=torch.bool),
        texts=[None],
    )
    seen = set()
    for seed in range(40):
        model.contexts.clear()
        dynamics_loss(model, truth, quiet, torch.Generator().manual_seed(seed), feedback=True)
        passes = len(model.contexts) - 1
        last = model.contexts[-1].tolist()
        own = [value > 0 for value in last]
        first = own.index(True) if any(own) else frames
        assert last == [0.0] * first + [float(min(i + 1, passes)) for i in range(frames - first)]
        seen.add((passes, first < frames))
    assert {passes for passes, _ in seen} == {1, 2, 3}


def test_the_second_phase_trains_on_with_its_own_rollouts(config: TrainConfig, tmp_path: Path) -> None:
    first = train(config, out=tmp_path / "first", show_progress=False)
    second = second_phase(config, str(first))
    second = replace(second, optimiser=replace(second.optimiser, steps=4), threads=1)
    checkpoint = train(second, out=tmp_path / "second", show_progress=False)
    made = load_checkpoint(checkpoint)
    assert made.model.config.source == "previous"
    assert made.meta["training"]["dynamics"]["feedback_depth"] == 2
    frames = worldsim.load(checkpoint).rollout(actions=[0, 1, 2], text="a red ball", seed=1)
    assert frames.shape == (4, 32, 32, 3)
