"""Checkpoints: written whole, read strictly."""

import json
import pickle

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file, save_file
from tiny_worlds import checkpoint

from worldsim.checkpoint import load_checkpoint, save_checkpoint
from worldsim.errors import CheckpointError, ConfigError, UnknownNameError, WorldsimError
from worldsim.simulator import Simulator, load


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(checkpoint(), tmp_path / "world", card="# A world\n")


def _edit_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    for name, value in changes.items():
        if value is None:
            del config[name]
        else:
            config[name] = value
    (path / "config.json").write_text(json.dumps(config))


def _edit_weights(path, change, *, file="model.safetensors", honest=True):
    weights = load_file(path / file)
    change(weights)
    save_file(weights, path / file)
    if honest:
        _edit_config(path, sha256={})


def test_what_is_written_is_read(tmp_path):
    space = spaces.Dict({"go": spaces.Discrete(3), "turn": spaces.Box(-1, 1, (2,))})
    world = checkpoint(space=space)
    read = load_checkpoint(save_checkpoint(world, tmp_path / "world", card="A card."))
    for name in ("model", "tokenizer"):
        ours, theirs = getattr(world, name).state_dict(), getattr(read, name).state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
        assert getattr(read, name).config == getattr(world, name).config
    assert (read.action_space, read.fps, read.frame_size, read.reward_scale) == (space, 10.0, (32, 16), 2.0)
    assert (tmp_path / "world" / "README.md").read_text() == "A card."
    assert not any(p.requires_grad for p in read.model.parameters())


def test_a_loaded_world_is_the_saved_one_bit_for_bit(saved):
    here, there = Simulator(checkpoint()), load(saved)
    assert here.fingerprint == there.fingerprint
    a, b = (sim.rollout(actions=np.array([0, 1, 2]), text="a red ball", seed=3) for sim in (here, there))
    np.testing.assert_array_equal(a, b)


def test_half_precision_on_disk_is_full_precision_in_use(tmp_path):
    read = load_checkpoint(save_checkpoint(checkpoint(), tmp_path / "w", card="", dtype=torch.float16))
    assert all(p.dtype == torch.float32 for p in read.model.parameters())
    expected = checkpoint().model.patchify.weight.half().float()
    assert torch.equal(read.model.patchify.weight, expected)


def test_writing_again_replaces_and_leaves_nothing_behind(saved):
    save_checkpoint(checkpoint(seed=5), saved, card="second")
    assert (saved / "README.md").read_text() == "second"
    assert load(saved).fingerprint == Simulator(checkpoint(seed=5)).fingerprint
    assert sorted(p.name for p in saved.parent.iterdir()) == ["world"]


def test_a_failed_write_leaves_the_old_checkpoint(saved, monkeypatch):
    before = load(saved).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("worldsim.checkpoint._sha256", lambda file: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_checkpoint(checkpoint(seed=5), saved, card="second")
    assert load(saved).fingerprint == before
    assert sorted(p.name for p in saved.parent.iterdir()) == ["world"]


def _truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])


def _flip(path):
    file = path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))


def _nan(weights):
    weights["level.0.bias"][0] = float("nan")


def _pickle(path):
    (path / "model.safetensors").write_bytes(pickle.dumps({"weights": 1}))


DAMAGE = {
    "no weights": lambda p: (p / "tokenizer.safetensors").unlink(),
    "truncated weights": _truncate,
    "one bit flipped": _flip,
    "pickle": _pickle,
    "NaN": lambda p: _edit_weights(p, _nan),
    "a weight missing": lambda p: _edit_weights(p, lambda w: w.pop("level.0.bias")),
    "a weight too many": lambda p: _edit_weights(p, lambda w: w.update(extra=torch.zeros(1))),
    "a weight of another shape": lambda p: _edit_weights(p, lambda w: w.update({"level.0.bias": torch.zeros(3)})),
    "another world's weights": lambda p: _edit_weights(
        p, lambda w: w.update({"std": torch.zeros(4)}), file="tokenizer.safetensors", honest=False
    ),
    "no config": lambda p: (p / "config.json").unlink(),
    "config cut": lambda p: (p / "config.json").write_text((p / "config.json").read_text()[:-20]),
    "config of bytes": lambda p: (p / "config.json").write_bytes(b"\xff\xfe\x00"),
    "another kind": lambda p: _edit_config(p, format="diffusers"),
    "a newer version": lambda p: _edit_config(p, version=99),
    "no version": lambda p: _edit_config(p, version=None),
    "no model": lambda p: _edit_config(p, model=None),
    "a list": lambda p: (p / "config.json").write_text("[]"),
    "no size": lambda p: _edit_config(p, frame_size=[16]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(saved, damage):
    damage(saved)
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"wdith": 3}}, "width"),
        ({"model": {"width": 18, "heads": 3}}, "multiple of 4"),
        ({"action_space": {"type": "Graph"}}, "space type"),
    ],
)
def test_configurations_that_do_not_fit_are_named(saved, changes, message):
    _edit_config(saved, **changes)
    with pytest.raises(WorldsimError, match=message):
        load(saved)


@pytest.mark.parametrize("name", [None, 3, b"bounce"])
def test_what_is_no_name_is_named(name):
    with pytest.raises(ConfigError, match="a directory or a shipped name"):
        load_checkpoint(name)


def test_unknown_names_suggest_or_list(tmp_path):
    with pytest.raises(UnknownNameError, match="checkpoint directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(UnknownNameError, match="checkpoint directory"):
        load("a" * 5000)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(tmp_path)
