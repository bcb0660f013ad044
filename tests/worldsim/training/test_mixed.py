"""Windows of several sizes and durations in one update: packed, they teach what they would teach one by one."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import worldsim
from worldsim.checkpoint import load_checkpoint
from worldsim.config import ModelConfig, TextConfig
from worldsim.data import Dataset, DatasetWriter
from worldsim.errors import ActionError, ConfigError, DatasetError
from worldsim.training import DynamicsConfig, TrainConfig, train
from worldsim.training.batches import LatentBatch
from worldsim.training.corpus import Mixture
from worldsim.training.draws import SampleGenerators, generators_for
from worldsim.training.learner import Learner
from worldsim.training.losses import dynamics_loss
from worldsim.transformer import VideoDiT

CPU = torch.device("cpu")
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
        replace(batch, **{k: v[i : i + 1] for k, v in vars(batch).items() if isinstance(v, torch.Tensor | list)})
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


def as_packs(windows: Sequence[LatentBatch]) -> list[LatentBatch]:
    """Windows one by one to groups of neighbours of one shape."""
    groups = [list(same) for _, same in itertools.groupby(windows, key=lambda w: w.latents.shape)]
    return [
        replace(
            same[0],
            **{k: torch.cat([getattr(w, k) for w in same]) for k, v in vars(same[0]).items() if torch.is_tensor(v)},
            texts=[text for w in same for text in w.texts],
        )
        for same in groups
    ]


def in_float64(batch: LatentBatch) -> LatentBatch:
    numbers = {k: v for k, v in vars(batch).items() if torch.is_tensor(v) and v.is_floating_point()}
    return replace(batch, **{k: v.double() for k, v in numbers.items()})


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("bidirectional", [0.0, 1.0])
def test_processes_that_share_a_mixed_batch_average_to_the_gradients_of_the_whole(
    parts: int, bidirectional: float
) -> None:
    """In float64, but for what the network itself rounds: norms of queries and keys, and its prediction.

    Weights of two runs may part further than this: Adam makes whole steps of a gradient that is all rounding, as that
    of the bias of the text encoder's keys, which no softmax feels.
    """
    model, config = small_model().double(), DynamicsConfig(bidirectional=bidirectional)
    windows = [w for i, shape in enumerate(SHAPES[:3]) for w in windows_of(in_float64(group(*shape, seed=i)))]

    def of_rows(rows: range) -> dict[str, torch.Tensor]:
        own = as_packs(windows[rows.start : rows.stop])
        return gradients(model, dynamics_loss(model, own, config, generators_for(0, "x", 1, rows), feedback=False)[0])

    count = len(windows) // parts
    found = [of_rows(range(i * count, (i + 1) * count)) for i in range(parts)]
    for name, gradient in of_rows(range(len(windows))).items():
        mean = torch.stack([part.get(name, torch.zeros_like(gradient)) for part in found]).mean(dim=0)
        assert float((mean - gradient).abs().max()) <= 1e-6 * float(gradient.abs().max()) + 1e-12, name


class Rows:
    """A source whose batches are the rows themselves."""

    def __init__(self, name: str, num_windows: int) -> None:
        self.name, self.num_windows = name, num_windows

    def batch(self, step: int, device: torch.device, rows: range) -> list[tuple[str, int, int]]:
        return [(self.name, step, row) for row in rows]

    def describe(self, step: int, rows: range) -> str:
        return f"{self.name} {rows.start}-{rows.stop}"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 2**20))
def test_every_row_comes_from_one_source_in_proportion(windows: list[int], size: int, seed: int) -> None:
    mixture = Mixture([Rows(str(i), n) for i, n in enumerate(windows)], size, seed)
    counts = np.zeros(len(windows))
    for step in range(20):
        rows = [row for group in mixture.batch(step, CPU) for row in group]
        assert [(s, r) for _, s, r in rows] == [(step, i) for i in range(size)]
        found = np.bincount([int(name) for name, _, _ in rows], minlength=len(windows))
        assert (abs(found - size * np.array(windows) / sum(windows)) < 1.0 + 1e-9).all()
        counts += found
        # Processes that take parts of the batch take parts of the same one.
        cut = seed % (size + 1)
        parts = [mixture.batch(step, CPU, part) for part in (range(cut), range(cut, size))]
        assert [row for part in parts for group in part for row in group] == rows
    assert "0 0-" in mixture.describe(3) or windows[0] < sum(windows)


def test_a_rare_source_gets_its_share_over_many_updates() -> None:
    mixture = Mixture([Rows("much", 97), Rows("little", 3)], 4, 0)
    rare = sum(name == "little" for step in range(2000) for group in mixture.batch(step, CPU) for name, _, _ in group)
    assert rare == pytest.approx(0.03 * 8000, rel=0.15)


@pytest.fixture
def two_sizes(dataset: Dataset, wide: Dataset, saving: TrainConfig) -> TrainConfig:
    """Square and wide frames, windows of five and of three."""
    return replace(
        saving,
        data=(str(dataset.path), str(wide.path)),
        dynamics=replace(saving.dynamics, lengths=(5, 3), feedback=0.5, events=0.3),
        tokenizer_optimiser=replace(saving.tokenizer_optimiser, batch_size=6),
        optimiser=replace(saving.optimiser, batch_size=6),
        evaluation=replace(saving.evaluation, clips=1, horizon=2, videos=1),
    )


def test_one_run_learns_two_sizes_and_resumes_bit_for_bit(
    two_sizes: TrainConfig, dataset: Dataset, wide: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(two_sizes, out=tmp_path / "whole", show_progress=False)
    meta = load_checkpoint(whole).meta
    assert meta["data"]["frame_sizes"] == [[32, 32], [16, 48]]
    assert meta["data"]["frames"] == dataset.num_frames + wide.num_frames
    simulator = worldsim.load(whole)
    for data in (dataset, wide):
        frames = data.episode(0).frames[:2]
        assert simulator.rollout(frames=frames, actions=[1, 2, 3], seed=0).shape == (5, *data.frame_size, 3)
    for data, name in ((dataset, "latents.npy"), (wide, "latents-2.npy")):
        height, width = data.frame_size
        assert np.load(tmp_path / "whole" / name).shape == (data.num_frames, 4, height // 8, width // 8)
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    held = next(line for line in lines if "held_data2_psnr_db" in line)
    assert held["held_psnr_db"] == pytest.approx((held["held_data1_psnr_db"] + held["held_data2_psnr_db"]) / 2)
    assert sorted(p.name[-6:] for p in (tmp_path / "whole/samples").iterdir()) == [
        "-2.mp4",
        "-2.mp4",
        "04.mp4",
        "08.mp4",
    ]

    honest, out = Learner.update, tmp_path / "broken"

    def breaks(self: Learner) -> float:
        if self.folder.name == "dynamics" and self.step == 5:
            raise KeyboardInterrupt
        return honest(self)

    monkeypatch.setattr(Learner, "update", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(two_sizes, out=out, show_progress=False)
    monkeypatch.setattr(Learner, "update", honest)
    resumed = train(two_sizes, out=out, resume=True, show_progress=False)
    for name in ("model", "tokenizer"):
        file = f"{name}.safetensors"
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()


def test_datasets_that_do_not_go_together_are_named(dataset: Dataset, tmp_path: Path, config: TrainConfig) -> None:
    rng = np.random.default_rng(0)
    for name, space, fps in (("actions", spaces.Discrete(3), dataset.fps), ("rate", dataset.action_space, 99.0)):
        with DatasetWriter(tmp_path / name, action_space=space, fps=fps) as writer:
            for _ in range(2):
                writer.add_episode(rng.integers(0, 255, (9, 32, 32, 3), np.uint8), np.zeros(8, np.int64))
    for name, error, words in (
        ("actions", ActionError, r"Discrete\(3\) in .*actions"),
        ("rate", DatasetError, "99 in"),
    ):
        with pytest.raises(error, match=words):
            train(replace(config, data=(str(dataset.path), str(tmp_path / name))), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="2 datasets and 3 lengths"):
        replace(config, data=("a", "b"), dynamics=replace(config.dynamics, lengths=(1, 2, 3)))
    both = (str(dataset.path), str(dataset.path))
    with pytest.raises(ConfigError, match="Leave compile out"):
        train(replace(config, data=both, compile=True), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_short_episodes_beside_long_ones_give_first_frames(
    dataset: Dataset, tmp_path: Path, config: TrainConfig
) -> None:
    rng = np.random.default_rng(0)
    short = tmp_path / "short"
    with DatasetWriter(short, action_space=dataset.action_space, fps=dataset.fps) as writer:
        for i in range(6):
            frames = rng.integers(0, 255, (2, *dataset.frame_size, 3), np.uint8)
            writer.add_episode(frames, np.zeros(1, np.int64), caption=f"scene {i}")
    mixed = replace(config, data=(str(short), str(dataset.path)))
    with pytest.raises(DatasetError, match=r"short, the longest of 2.*first_frames"):
        train(mixed, out=tmp_path / "run")
    firsts = replace(config.dynamics, first_frames=0.5)
    with pytest.raises(DatasetError, match="the longest of 2"):
        train(replace(mixed, data=str(short), dynamics=firsts), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(replace(mixed, dynamics=firsts), out=tmp_path / "run", show_progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    held = [n for n in lines if "held_x_error" in n]
    assert held
    assert all(n["held_first_x_error"] > 0.0 for n in held)
    assert all("held_psnr_db" in n for n in held)
    assert not any(key.startswith("held_data") for n in held for key in n)  # one of them has clips to dream
