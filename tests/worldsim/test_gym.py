"""Learned worlds as Gymnasium environments: the contract, and batches equal to single environments."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import worldsim  # noqa: F401 - registers worldsim:Dream-v0
from worldsim.checkpoint import Checkpoint
from worldsim.config import ModelConfig, TextConfig, TokenizerConfig
from worldsim.errors import ActionError, ConfigError, FramesError, StateError, TextError, UnknownNameError
from worldsim.gym import SimulatorEnv, SimulatorVectorEnv
from worldsim.simulator import Simulator
from worldsim.spaces import action_dim
from worldsim.state import State
from worldsim.tokenizer import build_tokenizer
from worldsim.transformer import VideoDiT

ACTION_SPACES = {
    "discrete": spaces.Discrete(4),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "multi": spaces.MultiDiscrete([3, 2]),
    "dict": spaces.Dict({"move": spaces.Box(-1, 1, (2,), np.float32), "jump": spaces.Discrete(2)}),
    "none": None,
}


RANGES = (0.0, 0.2, 0.1, 0.5, 0.0, 1.0)


def simulator(kind: str = "discrete", *, stride: int = 1, size: int = 32, camera: bool = False) -> Simulator:
    """A world with random weights, so that everything matters."""
    torch.manual_seed(0)
    space = ACTION_SPACES[kind]
    dim = 0 if space is None else action_dim(space) * stride
    tokenizer = build_tokenizer(TokenizerConfig(latent_channels=4, width=8, temporal_stride=stride))
    model = VideoDiT(
        ModelConfig(
            latent_channels=4,
            width=16,
            depth=2,
            heads=2,
            window=3,
            action_dim=dim,
            camera_dim=6 * stride * camera,
            text=TextConfig(buckets=32, slots=2),
        )
    )
    for parameter in (*model.parameters(), *tokenizer.parameters()):
        parameter.data += 0.2 * torch.randn_like(parameter)
    return Simulator(
        Checkpoint(
            tokenizer=tokenizer,
            model=model,
            action_space=space,
            fps=10.0,
            frame_size=(size, size),
            camera_range=RANGES if camera else None,
        )
    )


@pytest.mark.filterwarnings("ignore:.*render_fps.*")
@pytest.mark.filterwarnings("ignore:.*maximum and minimum.*equal.*")  # motions that no training episode made
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("kind", [*sorted(ACTION_SPACES), "camera", "discrete and camera"])
def test_the_environment_keeps_gymnasiums_contract(kind: str, stride: int) -> None:
    name = {"camera": "none", "discrete and camera": "discrete"}.get(kind, kind)
    sim = simulator(name, stride=stride, camera="camera" in kind)
    check_env(SimulatorEnv(sim, render_mode="rgb_array", hold=stride == 1), skip_render_check=False)


def test_gym_make_gives_the_same_environment() -> None:
    env = gym.make("worldsim:Dream-v0", checkpoint=simulator(), max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends[-1][1]
    assert not ends[0][1]


@pytest.mark.parametrize("kind", sorted(ACTION_SPACES))
def test_environment_k_of_a_batch_equals_a_single_one(kind: str) -> None:
    sim = never_ending(lambda: simulator(kind))
    batch = SimulatorVectorEnv(3, sim, text="a red ball")
    batch.action_space.seed(1)
    frames, _ = batch.reset(seed=5)
    singles = [SimulatorEnv(sim, text="a red ball") for _ in range(3)]
    for k, env in enumerate(singles):
        np.testing.assert_allclose(env.reset(seed=5 + k)[0], frames[k], atol=1)
    for _ in range(5):
        actions = batch.action_space.sample()
        frames, rewards, *_ = batch.step(actions)
        for k, env in enumerate(singles):
            one = {n: a[k] for n, a in actions.items()} if kind == "dict" else actions[k]
            frame, reward, *_ = env.step(one)
            # uint8 frames may differ by rounding where float32 sums are ordered otherwise
            np.testing.assert_allclose(frame.astype(int), frames[k], atol=1)
            assert reward == pytest.approx(rewards[k], abs=1e-4)


def test_agents_move_the_camera_where_the_world_takes_its_motion() -> None:
    """Motions alone without actions, both as a Dict, actions alone where the camera is left out."""
    alone = SimulatorEnv(simulator("none", camera=True)).action_space
    assert alone == spaces.Box(-np.array(RANGES, np.float32), np.array(RANGES, np.float32), (6,), np.float32)
    sim = simulator(camera=True)
    env = SimulatorEnv(sim)
    assert env.action_space == spaces.Dict({"action": spaces.Discrete(4), "camera": alone})
    assert SimulatorEnv(sim, camera=False).action_space == spaces.Discrete(4)
    with pytest.raises(ConfigError, match="motion"):
        SimulatorEnv(simulator(), camera=True)
    given = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    past, motion = 0.1 * np.ones((2, 6)), np.array([0, 0.1, 0, 0.2, 0, 0.5], np.float32)
    _, info = env.reset(options={"frames": given, "camera": past, "text": "a box"})
    frame, *_ = env.step({"action": 2, "camera": motion})
    state, _ = sim.reset(frames=given, camera=past, text="a box", seed=int(env.state.seeds[0]))
    np.testing.assert_array_equal(frame, sim.step(state, np.array([2]), camera=motion[None]).frames[0])
    assert info["frame"] == 3
    with pytest.raises(ActionError):
        env.step({"action": 2, "camera": 3.0 * motion})


@pytest.mark.parametrize("camera", [False, True])
def test_a_step_of_four_frames_in_a_batch_and_alone(camera: bool) -> None:
    """Temporal stride 4: four actions in, four frames out, of which the last is observed."""
    sim = never_ending(lambda: simulator(stride=4, camera=camera))
    batch, single = SimulatorVectorEnv(2, sim, hold=False), SimulatorEnv(sim, hold=False)
    batch.action_space.seed(3)
    batch.reset(seed=5)
    single.reset(seed=6)
    for _ in range(2):
        actions = batch.action_space.sample()
        one = {n: a[1] for n, a in actions.items()} if camera else actions[1]
        assert np.shape(one["action"] if camera else one) == (4,)
        frames, *_, infos = batch.step(actions)
        frame, *_, info = single.step(one)
        assert infos["frames"].shape == (2, 4, 32, 32, 3)
        np.testing.assert_array_equal(infos["frames"][:, -1], frames)
        np.testing.assert_array_equal(info["frames"][-1], frame)
        np.testing.assert_allclose(infos["frames"][1].astype(int), info["frames"], atol=1)
    state, _ = sim.reset(seed=7)
    held, four = SimulatorEnv(sim), SimulatorEnv(sim, hold=False)
    motion = np.array([0, 0.1, 0, 0.2, 0, 0.5], np.float32)
    seen = []
    for env, times in ((held, ()), (four, (4,))):
        env.reset(options={"state": state})
        action, move = np.full(times, 2, np.int64)[()], np.broadcast_to(motion, (*times, 6))
        seen.append(env.step({"action": action, "camera": move} if camera else action)[4]["frames"])
    np.testing.assert_array_equal(*seen)


def test_options_of_one_each_reach_the_environments_that_are_reset() -> None:
    sim = simulator("dict", camera=True)
    rng = np.random.default_rng(0)
    options = {
        "frames": rng.integers(0, 255, (3, 3, 32, 32, 3), np.uint8),
        "actions": {"move": rng.uniform(-1, 1, (3, 2, 2)), "jump": rng.integers(0, 2, (3, 2))},
        "camera": rng.normal(0, 0.1, (3, 2, 6)),
    }
    env = SimulatorVectorEnv(3, sim)
    env.reset(seed=0)
    env.reset(options={**options, "reset_mask": np.array([False, True, True])})
    whole = env.state
    env.reset(options=options)
    for name in ("actions", "has_action", "camera", "has_camera"):
        expected = getattr(env.state.controls, name)[1:]
        assert torch.equal(getattr(whole.controls, name)[1:], expected), name
    with pytest.raises(StateError, match="frames of 3 environments"):
        env.reset(options={"frames": options["frames"][:2]})


def ended_at(env: SimulatorVectorEnv, steps: int) -> list[tuple[np.ndarray, np.ndarray, dict]]:
    env.reset(seed=0)
    out = []
    for _ in range(steps):
        frames, _, terminated, truncated, info = env.step(np.zeros(env.num_envs, np.int64))
        out.append((frames, terminated | truncated, info))
    return out


def never_ending(make: Callable[[], Simulator] = simulator) -> Simulator:
    sim = make()
    sim.model.outcome.mlp[-1].bias.data[1] = -1e4  # no termination, so that only the step limit ends episodes
    return sim


def test_next_step_autoreset_resets_one_step_later() -> None:
    env = SimulatorVectorEnv(2, never_ending(), max_episode_steps=3, autoreset_mode="NextStep")
    steps = ended_at(env, 5)
    assert [bool(done.all()) for _, done, _ in steps] == [False, False, True, False, False]
    assert [int(info["frame"][0]) for *_, info in steps] == [2, 3, 4, 1, 2]
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP


def test_same_step_autoreset_gives_the_final_observation() -> None:
    env = SimulatorVectorEnv(2, never_ending(), max_episode_steps=3, autoreset_mode=AutoresetMode.SAME_STEP)
    steps = ended_at(env, 4)
    frames, done, info = steps[2]
    assert done.all()
    assert int(info["frame"][0]) == 1
    assert info["_final_obs"].all()
    assert info["final_obs"][0].shape == frames[0].shape
    assert int(info["final_info"]["frame"][0]) == 4
    assert "final_obs" not in steps[3][2]


def test_disabled_autoreset_wants_a_masked_reset() -> None:
    env = SimulatorVectorEnv(2, never_ending(), max_episode_steps=2, autoreset_mode="Disabled")
    ended_at(env, 2)
    with pytest.raises(StateError, match="reset"):
        env.step(np.zeros(2, np.int64))
    before = env.state.frame.tolist()
    env.reset(options={"reset_mask": np.array([True, False])})
    assert env.state.frame.tolist() == [1, before[1]]


def test_autoreset_agrees_with_gymnasiums_own_vectorisation() -> None:
    sim = never_ending()
    own = SimulatorVectorEnv(2, sim, max_episode_steps=3)
    reference = gym.vector.SyncVectorEnv(
        [lambda: gym.make("worldsim:Dream-v0", checkpoint=sim, max_episode_steps=3) for _ in range(2)]
    )
    own.reset(seed=7)
    reference.reset(seed=7)
    for step in range(8):
        actions = np.array([step % 4, (step + 1) % 4])
        mine, theirs = own.step(actions), reference.step(actions)
        np.testing.assert_allclose(mine[0].astype(int), theirs[0], atol=1)
        for a, b in zip(mine[2:4], theirs[2:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_state_brings_an_episode_back() -> None:
    env = SimulatorEnv(simulator())
    env.reset(seed=0)
    env.step(1)
    saved = env.state
    first = [env.step(a)[0] for a in (2, 0, 3)]
    for more in ({"text": "a box"}, {"frames": np.zeros((1, 32, 32, 3), np.uint8)}):  # neither would change it
        with pytest.raises(StateError, match="state alone"):
            env.reset(options={"state": saved, **more})
    frame, info = env.reset(options={"state": saved})
    assert info["caption"] == ""
    again = [env.step(a)[0] for a in (2, 0, 3)]
    np.testing.assert_array_equal(first, again)
    assert frame.shape == first[0].shape


def test_a_state_knows_its_caption() -> None:
    env, other = SimulatorEnv(simulator()), SimulatorEnv(simulator(), text="another")
    env.reset(seed=0, options={"text": "a red ball"})
    assert other.reset(options={"state": env.state})[1]["caption"] == "a red ball"
    assert other.step(1)[4]["caption"] == "a red ball"
    batch = SimulatorVectorEnv(2, simulator(), text="another")
    batch.reset(seed=0)
    pair = State.join([env.state, other.state]).scatter([1], batch.state.take([0]))
    assert batch.reset(options={"state": pair})[1]["caption"].tolist() == ["a red ball", "another"]


def test_given_frames_start_the_episode() -> None:
    env = SimulatorEnv(simulator())
    given = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    frame, info = env.reset(options={"frames": given, "text": "a box"})
    np.testing.assert_array_equal(frame, given[-1])
    assert info == {"caption": "a box", "frame": 4}


def test_render_gives_the_latest_frame() -> None:
    env = SimulatorEnv(simulator(), render_mode="rgb_array")
    frame, _ = env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), frame)


def test_wrappers_of_gymnasium_work_unchanged() -> None:
    env = gym.wrappers.FrameStackObservation(
        gym.wrappers.GrayscaleObservation(gym.wrappers.ResizeObservation(SimulatorEnv(simulator()), (16, 16))), 3
    )
    assert env.reset(seed=0)[0].shape == (3, 16, 16)
    assert env.step(0)[0].shape == (3, 16, 16)


def test_ppo_trains_in_the_dream() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("worldsim:Dream-v0", checkpoint=simulator(size=64), max_episode_steps=8)
    agent = sb3.PPO("CnnPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    before = [p.detach().clone() for p in agent.policy.parameters()]
    agent.learn(32)
    assert agent.num_timesteps == 32
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters(), strict=True))


def test_wrong_use_is_named() -> None:
    env = SimulatorEnv(simulator())
    with pytest.raises(StateError, match="reset"):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(9)
    for action in (True, False, np.True_):
        with pytest.raises(ActionError):
            env.step(action)
    with pytest.raises(ConfigError, match="mapping"):
        env.reset(options=["text"])
    for make in (
        lambda: SimulatorEnv(simulator(), render_mode="human"),
        lambda: SimulatorVectorEnv(2, simulator(), render_mode="human"),
        lambda: SimulatorVectorEnv(2, simulator(), autoreset_mode="never"),
    ):
        with pytest.raises(UnknownNameError):
            make()
    with pytest.raises(UnknownNameError, match="'text'"):
        env.reset(options={"txt": "a ball"})
    for counts in ({"num_envs": 0}, {"num_envs": 1.5}, {"num_envs": 1, "max_episode_steps": "many"}):
        with pytest.raises(ConfigError, match="whole"):
            SimulatorVectorEnv(checkpoint=simulator(), **counts)
    for size in (32, ("a", 32)):
        with pytest.raises(FramesError, match="height, width"):
            SimulatorEnv(simulator(), frame_size=size)
    with pytest.raises(ConfigError, match="own device"):
        SimulatorEnv(simulator(), device="meta")
    with pytest.raises(ConfigError, match="a Sampling"):
        SimulatorEnv(simulator(), sampling={"steps": 1})
    batch = SimulatorVectorEnv(2, simulator())
    for seed in ([1, 2, 3], 1.5, "x"):
        with pytest.raises(StateError, match="seeds"):
            batch.reset(seed=seed)
    with pytest.raises(TextError):
        batch.reset(options={"text": 3})
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    with pytest.raises(StateError, match="equal lengths"):
        batch.reset(options={"frames": frames, "actions": [[1, 2], [3]]})
    with pytest.raises(UnknownNameError, match="'1'"):
        batch.reset(options={1: 2})
    batch.reset(seed=0)
    for actions in (np.zeros(3, np.int64), [True, 1], np.array([True, False])):
        with pytest.raises(ActionError):
            batch.step(actions)
    with pytest.raises(StateError, match="environments"):
        batch.reset(options={"state": env.state})
    with pytest.raises(StateError, match="state alone"):
        batch.reset(options={"state": batch.state, "text": ["a box", "a ball"]})
