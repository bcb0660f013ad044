"""Oasis' tiny reference: forward pass, latents, rollout and frames, across the sliding window."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_worlds import told

from worldsim.cli import main
from worldsim.compat.open_oasis import CONTEXT_LEVEL, import_open_oasis
from worldsim.errors import CheckpointError, ConfigError, FramesError
from worldsim.nn.masks import causal_mask
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load
from worldsim.transformer import Conditions

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "open_oasis_tiny.safetensors"
TOLERANCE = 1e-4
NAMES = ("forward", "back", "jump", "cameraX", "cameraY")


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dictionary
        meta = {k: json.loads(v) for k, v in file.metadata().items()}
    return tensors, meta


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """The reference's two weight files, as its project writes them."""
    tensors, _ = golden
    folder = tmp_path_factory.mktemp("oasis")
    paths = []
    for part in ("dit", "vae"):
        weights = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        paths.append(folder / f"{part}.safetensors")
        save_file(weights, paths[-1])
    return paths


def _arguments(meta):
    dit, vae = meta["dit"], meta["vae"]
    return {
        "frame_size": (vae["input_height"], vae["input_width"]),
        "window": dit["max_frames"],
        "vae_heads": vae["enc_heads"],
        "action_names": NAMES,
        "steps": meta["steps"],
    }


@pytest.fixture(scope="module")
def simulator(golden, files):
    return Simulator(import_open_oasis(*files, **_arguments(golden[1])))


def test_what_the_weights_tell_is_read_from_them(golden, simulator):
    dit, vae = golden[1]["dit"], golden[1]["vae"]
    model, tokenizer = simulator.model.config, simulator.tokenizer.config
    assert (model.width, model.depth, model.heads) == (dit["hidden_size"], dit["depth"], dit["num_heads"])
    assert (model.patch, model.latent_channels) == (dit["patch_size"], dit["in_channels"])
    assert (model.action_dim, model.mlp_ratio, model.window) == (dit["external_cond_dim"], 4.0, dit["max_frames"])
    assert (tokenizer.spatial_stride, tokenizer.width) == (vae["patch_size"], vae["enc_dim"])
    assert (tokenizer.encoder_depth, tokenizer.decoder_depth) == (vae["enc_depth"], vae["dec_depth"])
    assert simulator.sampling == Sampling(
        steps=golden[1]["steps"], cache="exact", context_level=CONTEXT_LEVEL, context_noise=False
    )


def test_a_forward_pass_matches(golden, simulator):
    tensors, _ = golden
    x, count = tensors["forward.x"], tensors["forward.x"].shape[1]
    out = simulator.model(
        x,
        (tensors["forward.t"] + 1) / 1000,
        Conditions(actions=tensors["forward.actions"]),
        positions=torch.arange(count),
        mask=causal_mask(count, simulator.model.config.window),
    )
    torch.testing.assert_close(out.prediction, tensors["forward.out"], atol=TOLERANCE, rtol=0)


def test_latents_of_given_frames_match(golden, simulator):
    tensors, _ = golden
    latents = simulator.tokenizer.encode(tensors["rollout.prompt_frames"] * 2 - 1)
    torch.testing.assert_close(latents, tensors["rollout.prompt_latents"], atol=TOLERANCE, rtol=0)


def test_frames_of_latents_match(golden, simulator):
    tensors, _ = golden
    frames = ((simulator.tokenizer.decode(tensors["rollout.latents"]) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(frames, tensors["rollout.frames"], atol=TOLERANCE, rtol=0)


def test_a_rollout_across_the_sliding_window_matches(golden, simulator):
    """From the reference's own noise; its clamp to 20 standard deviations touches no Gaussian number that occurs."""
    tensors, meta = golden
    actions, noise, expected = (tensors[f"rollout.{k}"] for k in ("actions", "noise", "latents"))
    given = tensors["rollout.prompt_latents"].shape[1]
    assert expected.shape[1] > meta["dit"]["max_frames"]
    assert noise.abs().max() < 20
    dynamics = simulator.dynamics
    with torch.inference_mode():
        state = dynamics.blank([0, 0], [None, None], tuple(expected.shape[-2:]), fingerprint=simulator.fingerprint)
        # The first action is none, which the reference tells as zeros.
        known = torch.arange(given).expand(2, given) > 0
        state = dynamics.prefill(
            state, tensors["rollout.prompt_latents"], told(simulator.model, actions[:, :given], known)
        )
        found = [tensors["rollout.prompt_latents"]]
        for i in range(given, expected.shape[1]):
            controls = told(simulator.model, actions[:, i : i + 1])
            state, latent, _ = dynamics.advance(state, controls, noise[:, i - given][:, None])
            found.append(latent)
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=TOLERANCE, rtol=0)
    frames = ((simulator.tokenizer.decode(torch.cat(found, dim=1)) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(frames, tensors["rollout.frames"], atol=TOLERANCE, rtol=0)


def test_a_rolling_cache_would_not_match(golden, simulator):
    """The reference was not trained with windowed attention: this is why its cache is refreshed."""
    tensors, _ = golden
    rule = Sampling(**(simulator.sampling.to_dict() | {"cache": "rolling"}))
    rolling = Simulator(simulator.checkpoint, sampling=rule).dynamics
    given = tensors["rollout.prompt_latents"]
    with torch.inference_mode():
        state = rolling.blank([0, 0], [None, None], tuple(given.shape[-2:]), fingerprint="")
        known = torch.tensor([[False, True]] * 2)
        state = rolling.prefill(state, given, told(simulator.model, tensors["rollout.actions"][:, :2], known))
        for i in range(2, 10):
            action, noise = tensors["rollout.actions"][:, i : i + 1], tensors["rollout.noise"][:, i - 2][:, None]
            state, latent, _ = rolling.advance(state, told(simulator.model, action), noise)
    assert (latent[:, 0] - tensors["rollout.latents"][:, 9]).abs().max() > 100 * TOLERANCE


def test_the_command_writes_a_checkpoint_that_steps(golden, files, simulator, tmp_path, capsys):
    options = [
        "--frame-size",
        "24",
        "32",
        "--window",
        "6",
        "--vae-heads",
        "2",
        "--steps",
        "5",
        "--action-names",
        *NAMES,
    ]
    assert main(["import", "open-oasis", *map(str, files), str(tmp_path / "oasis"), *options]) == 0
    assert "24x32" in capsys.readouterr().out
    sim = load(tmp_path / "oasis")
    assert sim.fingerprint == simulator.fingerprint
    assert (sim.fps, sim.frame_size, sim.action_space.shape) == (20.0, (24, 32), (5,))
    frames = (golden[0]["rollout.prompt_frames"][0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    video = sim.rollout(frames=frames, actions=golden[0]["rollout.actions"][0, 2:].numpy())
    assert video.shape == (10, 24, 32, 3)
    assert video.dtype == np.uint8
    with pytest.raises(FramesError, match="24 x 32"):
        sim.reset(frames=np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(FramesError, match="at most 6"):
        sim.reset(frames=np.zeros((7, 24, 32, 3), np.uint8))


def _damaged(files, tmp_path, change):
    with safe_open(files[0], "pt") as file:
        weights = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dictionary
    change(weights)
    save_file(weights, tmp_path / "dit.safetensors")
    return tmp_path / "dit.safetensors", files[1]


CHANGES = {
    "missing": lambda w: w.pop("blocks.1.s_attn.to_qkv.weight"),
    "half missing": lambda w: w.pop("blocks.1.t_adaLN_modulation.1.bias"),
    "unknown": lambda w: w.update(extra=torch.zeros(1)),
    "no patches": lambda w: w.pop("x_embedder.proj.weight"),
    "no frequencies": lambda w: [w.pop(k) for k in list(w) if k.endswith("freqs")],
    "time frequencies": lambda w: w["blocks.2.t_attn.rotary_emb.freqs"].mul_(1.01),
    "space frequencies": lambda w: w["spatial_rotary_emb.freqs"].add_(0.1),
    "NaN": lambda w: w["external_cond.bias"].fill_(float("nan")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_weights_that_are_not_oasis_are_named(golden, files, tmp_path, change):
    with pytest.raises(CheckpointError, match="Oasis"):
        import_open_oasis(*_damaged(files, tmp_path, change), **_arguments(golden[1]))


def test_one_copy_of_shared_frequencies_is_enough(golden, files, tmp_path, simulator):
    """The reference shares its frequency tensors between blocks, so a file may hold them once, under any name."""

    def keep_one(weights):
        for name in [k for k in weights if k.endswith("freqs") and k != "blocks.1.t_attn.rotary_emb.freqs"]:
            del weights[name]

    once = import_open_oasis(*_damaged(files, tmp_path, keep_one), **_arguments(golden[1]))
    assert Simulator(once).fingerprint == simulator.fingerprint


def test_files_in_the_wrong_order_or_pickled_are_named(golden, files, tmp_path):
    with pytest.raises(CheckpointError, match="transformer first"):
        import_open_oasis(*files[::-1], **_arguments(golden[1]))
    torch.save({"x": torch.zeros(1)}, tmp_path / "dit.pt")
    with pytest.raises(CheckpointError, match="pickled weights are not read"):
        import_open_oasis(tmp_path / "dit.pt", files[1], **_arguments(golden[1]))


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"action_names": ("a",)}, ConfigError), ({"vae_heads": 3}, ConfigError), ({"frame_size": (25, 32)}, FramesError)],
)
def test_arguments_that_do_not_fit_are_named(golden, files, changes, error):
    with pytest.raises(error):
        import_open_oasis(*files, **(_arguments(golden[1]) | changes))
