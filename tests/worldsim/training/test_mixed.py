"""Windows of several sizes and durations in one update: packed, they teach what they would teach one by one."""

from dataclasses import replace

import pytest
import torch

from worldsim.config import ModelConfig, TextConfig
from worldsim.training import DynamicsConfig
from worldsim.training.draws import SampleGenerators, generators_for
from worldsim.training.losses import LatentBatch, dynamics_loss
from worldsim.transformer import VideoDiT

SHAPES = [(2, 5, 4, 4), (1, 5, 2, 6), (3, 3, 4, 2), (1, 1, 2, 2)]  # windows, frames, rows, columns


def small_model(**changes: object) -> VideoDiT:
    torch.manual_seed(0)
    settings = {"latent_channels": 4, "width": 16, "depth": 2, "heads": 2, "window": 3, "action_dim": 5}
    model = VideoDiT(ModelConfig(**(settings | {"text": TextConfig(buckets=32, slots=2)} | changes)))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def group(b: int, f: int, h: int, w: int, *, seed: int) -> LatentBatch:
    g = torch.Generator().manual_seed(seed)
    known = torch.ones(b, f, dtype=torch.bool)
    known[:, 0] = False
    return LatentBatch(
        latents=torch.randn(b, f, 4, h, w, generator=g),
        actions=torch.rand(b, f, 5, generator=g),
        rewards=torch.randn(b, f, generator=g),
        terminated=torch.rand(b, f, generator=g) > 0.5,
        known=known,
        texts=[["a red ball", None, "two boxes"][(seed + i) % 3] for i in range(b)],
    )


def windows_of(batch: LatentBatch) -> list[LatentBatch]:
    return [
        replace(batch, **{k: v[i : i + 1] for k, v in vars(batch).items() if v is not None})
        for i in range(len(batch.latents))
    ]


def gradients(model: VideoDiT, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("bidirectional", "changes"),
    [(0.0, {}), (1.0, {}), (0.0, {"text": None, "heads_out": False, "source": "previous", "modulation": "block"})],
    ids=["two streams", "bidirectional", "other model"],
)
def test_a_pack_costs_the_mean_of_its_windows_one_by_one(bidirectional: float, changes: dict) -> None:
    model = small_model(**changes)
    config = DynamicsConfig(bidirectional=bidirectional, feedback_depth=2, drop_text=0.4, drop_action=0.4)
    packed = [group(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    alone = [window for batch in packed for window in windows_of(batch)]
    places = range(len(alone))
    loss, parts = dynamics_loss(model, packed, config, generators_for(0, "x", 1, places), feedback=True)
    got = gradients(model, loss)

    def one(i: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        every = generators_for(0, "x", 1, places)
        mine = SampleGenerators(shared=every.shared, samples=every.samples[i : i + 1])
        return dynamics_loss(model, alone[i], config, mine, feedback=True)

    found = [one(i) for i in places]
    expected = torch.stack([x for x, _ in found]).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, part in parts.items():
        torch.testing.assert_close(part, torch.stack([p[name] for _, p in found]).mean(), rtol=1e-5, atol=1e-6)
    wanted = gradients(model, expected)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_the_order_of_a_packs_windows_does_not_matter() -> None:
    model, config = small_model(), DynamicsConfig(bidirectional=0.0)
    packed = [group(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    sources = generators_for(0, "x", 1, range(7))
    loss, _ = dynamics_loss(model, packed, config, sources, feedback=False)
    again = generators_for(0, "x", 1, range(7))
    samples = [*again.samples[6:], *again.samples[3:6], *again.samples[2:3], *again.samples[:2]]
    turned, _ = dynamics_loss(
        model, packed[::-1], config, SampleGenerators(shared=again.shared, samples=samples), feedback=False
    )
    torch.testing.assert_close(loss, turned, rtol=1e-5, atol=1e-6)
