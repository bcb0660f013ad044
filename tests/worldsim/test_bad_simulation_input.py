"""Everything that a caller of the simulator may do wrong."""

import re
from dataclasses import replace

import numpy as np
import pytest
from tiny_worlds import (
    SIZE,
    WINDOW,
    pixels,
    simulator,
)

from worldsim.errors import ActionError, ConfigError, FramesError, StateError, TextError
from worldsim.sampling import Sampling
from worldsim.simulator import Simulator, load
from worldsim.state import State

SINKS = Sampling(steps=1, first_steps=2, sinks=2)
PLAIN = simulator()
BAD_RESET = {
    "float frames": ({"frames": pixels(2) / 255.0}, FramesError, "uint8"),
    "a list": ({"frames": [1, 2]}, FramesError, "uint8"),
    "no channels": ({"frames": pixels(2)[..., 0]}, FramesError, "uint8"),
    "four channels": ({"frames": np.zeros((2, 16, 16, 4), np.uint8)}, FramesError, "uint8"),
    "no frames": ({"frames": pixels(0)}, FramesError, "uint8"),
    "odd size": ({"frames": np.zeros((2, 24, 16, 3), np.uint8)}, FramesError, "multiples of 16"),
    "odd new size": ({"frame_size": (20, 16)}, FramesError, "16 x 16 or 32 x 16"),
    "two sizes": ({"frames": pixels(2), "frame_size": (16, 16)}, FramesError, "(16, 16)"),
    "actions without frames": ({"actions": np.array([1])}, ActionError, "without given frames"),
    "too many actions": ({"frames": pixels(2), "actions": np.array([0, 1])}, ActionError, "1 actions between"),
    "too few actions": ({"frames": pixels(3), "actions": np.array([0])}, ActionError, "2 actions between"),
    "ragged actions": ({"frames": pixels(2), "actions": [[0], [1, 2]]}, ActionError, "one shape"),
    "bad action": ({"frames": pixels(2), "actions": np.array([3])}, ActionError, "Discrete(3)"),
    "rows of actions": ({"frames": pixels(2), "actions": np.zeros((2, 1), int)}, ActionError, "each of 1"),
    "numbers for text": ({"text": [3]}, TextError, "str"),
    "long text": ({"text": "a b c d e f g"}, TextError, "at most 6"),
    "no environments": ({"num_envs": 0}, StateError, "at least 1"),
    "half an environment": ({"num_envs": 1.5}, StateError, "at least 1"),
    "three and two": ({"text": ["a", "b"], "num_envs": 3}, StateError, "agree"),
    "frames and seeds": ({"frames": pixels(2, 1), "seed": [1, 2, 3]}, StateError, "agree"),
    "half a seed": ({"seed": [0.5]}, StateError, "64-bit"),
    "no seed": ({"seed": None}, StateError, "64-bit"),
    "a number for text": ({"text": 3}, TextError, "str"),
    "half a size": ({"frame_size": 16}, FramesError, "(height, width)"),
    "a negative size": ({"frame_size": (-16, 16)}, FramesError, "(height, width)"),
    "half a surrogate pair": ({"text": "a \ud83d ball"}, TextError, "lone surrogate at 2"),
    "a large seed": ({"seed": 2**63}, StateError, "64-bit"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_RESET.values(), ids=BAD_RESET)
def test_bad_resets_are_named(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        PLAIN.reset(**arguments)


def test_a_model_without_text_refuses_text():
    sim = simulator(text=None)
    with pytest.raises(TextError, match="without a text encoder"):
        sim.reset(text="a red ball")
    state, _ = sim.reset(text=[None, None])
    assert sim.step(state, np.array([0, 1])).frames.shape == (2, *SIZE, 3)


def test_a_model_that_must_be_refreshed_refuses_a_longer_context():
    sim = simulator(sampling=Sampling(cache="exact"))
    with pytest.raises(FramesError, match=f"at most {WINDOW}"):
        sim.reset(frames=pixels(WINDOW + 1))


BAD_STEP = {
    "too large": np.array([0, 3]),
    "one action": np.array([0]),
    "three actions": np.array([0, 1, 2]),
    "no axis": np.array(1),
    "halves": np.array([0.5, 1.0]),
    "NaN": np.array([np.nan, 1.0]),
    "words": np.array(["left", "right"]),
    "a mapping": {"go": 1},
}


@pytest.mark.parametrize("actions", BAD_STEP.values(), ids=BAD_STEP)
def test_bad_actions_are_named(actions):
    state, _ = PLAIN.reset(num_envs=2)
    with pytest.raises(ActionError):
        PLAIN.step(state, actions)


def test_a_world_without_actions_takes_none():
    sim = simulator(action_dim=0)
    state, _ = sim.reset()
    assert sim.step(state, None).frames.shape == (1, *SIZE, 3)
    for call in (lambda: sim.step(state, np.array([0])), lambda: sim.rollout(actions=[0, 1])):
        with pytest.raises(ActionError, match="takes None"):
            call()
    with pytest.raises(ActionError, match="takes None"):
        sim.reset(frames=pixels(2), actions=np.array([0]))


def test_what_is_no_state_device_or_video_is_named():
    with pytest.raises(StateError, match="a state of this model"):
        PLAIN.step(None, np.array([0]))
    with pytest.raises(FramesError, match="one video"):
        PLAIN.rollout(frames=pixels(2, 2), num_frames=1)
    for device in ("moon", "cuda:99"):
        with pytest.raises(ConfigError, match="a device that is here"):
            Simulator(PLAIN.checkpoint, device=device)
        with pytest.raises(ConfigError, match="a device that is here"):
            load("bounce", device=device)
    with pytest.raises(ConfigError, match="a Sampling"):
        Simulator(PLAIN.checkpoint, sampling={"steps": 1})
    with pytest.raises(StateError, match="a state"):
        PLAIN.reset()[0].scatter([0], 3)
    for several in ({"text": ["a", "b"]}, {"seed": [1, 2]}):  # of which only the first would be stepped
        with pytest.raises(StateError, match="one text and one seed"):
            PLAIN.rollout(num_frames=1, **several)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"actions": np.array([0, 1]), "num_frames": 3},
        {"num_frames": -1},
        {"num_frames": 1.0},
        {"actions": np.array(1)},
    ],
)
def test_bad_rollouts_are_named(arguments):
    with pytest.raises(ActionError):
        PLAIN.rollout(**arguments)


def test_states_of_other_models_or_guidance_are_refused():
    state, _ = simulator(seed=9).reset()
    for call in (lambda: PLAIN.step(state, np.array([0])), lambda: PLAIN.observe(state)):
        with pytest.raises(StateError, match="a state of this model"):
            call()
    text, action = (simulator(sampling=Sampling(**{k: 2.0})) for k in ("text_guidance", "action_guidance"))
    with pytest.raises(StateError, match="guidance"):
        text.step(action.reset()[0], np.array([0]))


def test_sinks_are_kept_with_the_state(tmp_path):
    sim = simulator(sampling=SINKS)
    state, _ = sim.reset(num_envs=2)
    assert State.load(state.save(tmp_path / "state.safetensors")).cache.sinks == 2
    with pytest.raises(StateError, match="2 attention sinks"):
        sim.step(PLAIN.reset(num_envs=2)[0], np.array([0, 0]))
    with pytest.raises(StateError, match="one model"):
        State.join([state, PLAIN.reset()[0]])
    with pytest.raises(ConfigError, match="fewer sinks than the window"):
        simulator(sampling=replace(SINKS, sinks=WINDOW))


def test_a_blank_state_has_nothing_to_observe():
    blank = PLAIN.dynamics.blank([0], [None], (4, 2), fingerprint=PLAIN.fingerprint)
    with pytest.raises(StateError, match="seen a frame"):
        PLAIN.observe(blank)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"context_level": 1.0},
        {"damping": 0.0},
        {"first_steps": 0},
        {"sinks": -1},
        {"sinks": 1, "cache": "exact"},
        {"text_guidance": float("nan")},
        {"method": "magic"},
        {"cache": "none"},
    ],
)
def test_bad_sampling_is_refused(options):
    with pytest.raises(ConfigError):
        Sampling(**options)


def test_heun_is_refused_before_any_frame():
    with pytest.raises(ConfigError, match="DDIM"):
        simulator(path="variance_preserving", sampling=Sampling(method="heun"))


@pytest.mark.parametrize(
    "options", [{"levels": ()}, {"levels": (0.0,)}, {"levels": (1.5,)}, {"draws": 0}, {"draws": 1.5}, {"levels": 0.5}]
)
def test_bad_surprise_is_refused(options):
    with pytest.raises(ConfigError, match="levels in"):
        PLAIN.surprise(pixels(2), **options)
