"""The Bounce environment: task, factors, splits, state as a value, counterfactuals, replay across processes."""

import multiprocessing
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from envs.bounce import ranges as R
from envs.bounce.captions import caption
from envs.bounce.env import REARM_FRAMES, BounceEnv
from envs.bounce.scenarios import EPISODE_FRAMES, SCENARIOS, make_scene
from envs.bounce.scene import Scene, Solid
from envs.errors import ActionError, CaptionError, SceneError, UnknownNameError
from envs.policies import RandomPolicy, bounce_expert

CASES = [(scenario, split) for scenario in SCENARIOS for split in R.splits(scenario)]


def episode(seed, actions, **config):
    env = BounceEnv(**config)
    obs, info = env.reset(seed=seed)
    frames, truth = [obs], [info["truth"]]
    for action in actions:
        obs, _, _, _, info = env.step(action)
        frames.append(obs)
        truth.append(info["truth"])
    return np.array(frames), truth


def digest(seed):
    frames, truth = episode(seed, np.random.default_rng(seed).integers(5, size=60))
    return frames.tobytes(), truth[-1]["position_m"].tobytes(), truth[-1]["velocity_m_per_s"].tobytes()


def test_the_same_seed_and_actions_replay_in_another_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.map(digest, [3, 4])
    assert elsewhere == [digest(3), digest(4)]


@pytest.mark.parametrize(("scenario", "split"), CASES)
def test_scenes_stay_in_their_split(scenario, split):
    wanted = R.ranges(scenario, split)
    for seed in range(6):
        scene = make_scene(scenario, rng=np.random.default_rng(seed), split=split)
        objects = [s for s in scene.solids if s.role != "agent"]
        assert len(objects) in wanted.count
        moving = [s for s in objects if any(s.velocity_m_per_s)]
        assert all(R.contains(wanted.radius_m, s.radius_m) for s in objects)
        assert all(R.contains(wanted.density_kg_per_m2, s.density_kg_per_m2) for s in objects)
        assert all(R.contains(wanted.speed_m_per_s, float(np.hypot(*s.velocity_m_per_s))) for s in moving)
        assert R.contains(wanted.gravity_m_per_s2, float(np.hypot(*scene.gravity_m_per_s2)))
        assert all(((s.colour, s.shape) in R.HELD_OUT) == wanted.held_out for s in objects)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_out_of_distribution_ranges_lie_outside_the_training_range(scenario):
    axes = {
        "ood_speed": "speed_m_per_s", "ood_size": "radius_m", "ood_mass": "density_kg_per_m2",
        "ood_gravity": "gravity_m_per_s2",
    }  # fmt: skip
    train = R.ranges(scenario)
    for split, factor in axes.items():
        if split in R.splits(scenario):
            for low, high in getattr(R.ranges(scenario, split), factor):
                assert all(high <= a or low >= b for a, b in getattr(train, factor))
    if "ood_count" in R.splits(scenario):
        assert not set(R.ranges(scenario, "ood_count").count) & set(train.count)


def test_options_fix_the_factors_of_variation():
    env = BounceEnv("collision", slots=3)
    env.reset(seed=1, options={"radius_m": [0.9, 1.1], "colour": ["green", "pink"], "speed_m_per_s": 2.0})
    assert [(s.radius_m, s.colour) for s in env.scene.solids] == [(0.9, "green"), (1.1, "pink")]
    assert [round(float(np.hypot(*s.velocity_m_per_s)), 2) for s in env.scene.solids] == [2.0, 2.0]
    _, info = env.reset(seed=1, options={"gravity_m_per_s2": (1.0, -2.0), "shape": "box", "count": 3})
    np.testing.assert_array_equal(info["truth"]["gravity_m_per_s2"], [1.0, -2.0])
    assert [s.shape for s in env.scene.solids] == ["box"] * 3
    scene = replace(env.scene, gravity_m_per_s2=(0.0, 0.0))
    env.reset(options={"scene": scene})
    assert env.scene == scene
    env.reset(options={"caption": caption(scene, detail="dense", rng=np.random.default_rng(0))})
    assert env.scene == scene


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: BounceEnv("biliards"), UnknownNameError, "Did you mean 'billiards'"),
        (lambda: BounceEnv(split="ood_sped"), UnknownNameError, "ood_speed"),
        (lambda: BounceEnv(detail="long"), UnknownNameError, "detail"),
        (lambda: BounceEnv(size=(0, 64)), SceneError, "size"),
        (lambda: BounceEnv(size=64), SceneError, "size"),
        (lambda: BounceEnv(render_mode="humann"), UnknownNameError, "render mode"),
        (lambda: BounceEnv().reset(options={"angle_rad": 0.3}), SceneError, "got angle_rad"),
        (lambda: BounceEnv("pendulum").reset(options={"speed_m_per_s": 2.0}), SceneError, "got speed_m_per_s"),
        (lambda: BounceEnv("ramp").reset(options={"count": 2}), SceneError, "count 2 for a scene of 1"),
        (lambda: BounceEnv().reset(options={"count": True}), SceneError, "whole number"),
        (lambda: BounceEnv().reset(options={"friction": True}), SceneError, "finite number"),
        (lambda: BounceEnv().reset(options={"colr": "red"}), UnknownNameError, "colour"),
        (lambda: BounceEnv().reset(options={"colour": "mauve"}), UnknownNameError, "colour"),
        (lambda: BounceEnv().reset(options={"radius_m": 4.95}), SceneError, "fewer or smaller"),
        (lambda: BounceEnv().reset(options={"radius_m": float("nan")}), SceneError, "finite"),
        (lambda: BounceEnv().reset(seed=0, options={"count": 9, "radius_m": 0.7}), SceneError, "slots"),
        (lambda: BounceEnv().reset(options={"count": 2, "radius_m": [1.0]}), SceneError, "as many entries"),
        (lambda: BounceEnv().reset(options={"scene": duel(), "count": 2}), SceneError, "alone"),
        (lambda: BounceEnv().reset(options={"caption": "A red teapot."}), CaptionError, "teapot"),
        (lambda: BounceEnv().reset(options={"caption": 3}), CaptionError, "str"),
        (lambda: BounceEnv().reset(options=["count"]), SceneError, "mapping"),
        (lambda: BounceEnv().set_state({"scene": duel()}), SceneError, "get_state"),
        (lambda: BounceEnv().set_state(None), SceneError, "NoneType"),
        (lambda: BounceEnv("stack").reset(options={"count": 12}), SceneError, "smaller"),
        (lambda: BounceEnv().reset(options={"colour": "red", "shape": "disc", "count": 2}), SceneError, "different"),
    ],
)
def test_bad_input_is_named_with_its_remedy(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("action", [5, -1, 1.0, float("nan"), None, "left", [1], np.array([0, 1])])
def test_actions_outside_the_space_are_refused(action):
    env = BounceEnv()
    env.reset(seed=0)
    with pytest.raises(ActionError, match="stay"):
        env.step(action)


def test_stepping_before_reset_is_refused():
    with pytest.raises(gym.error.ResetNeeded):
        BounceEnv().step(0)


def duel():
    """An agent that will hit the target on its right after about a second, and a hazard on its left."""
    body = {"shape": "disc", "radius_m": 0.8}
    return Scene(
        solids=(
            Solid(**body, colour="black", position_m=(5.0, 5.0), role="agent"),
            Solid(**body, colour="red", position_m=(8.0, 5.0), role="target", density_kg_per_m2=1e3),
            Solid(**body, colour="blue", position_m=(2.0, 5.0), role="hazard", density_kg_per_m2=1e3),
        )
    )


@pytest.mark.parametrize(("action", "reward"), [(2, 1.0), (1, -1.0)])
def test_touching_the_target_pays_and_the_hazard_costs(action, reward):
    env = BounceEnv(terminate=True)
    env.reset(seed=0, options={"scene": duel()})
    for _ in range(30):
        _, got, terminated, truncated, info = env.step(action)
        touched = (info["truth"]["contacts"][:, 0] == 0) & (info["truth"]["contacts"][:, 1] > 0)
        assert terminated == (got != 0) == touched.any()
        assert not truncated
        if terminated:
            break
    assert got == reward


def test_pressing_against_the_target_scores_once_in_a_second():
    env = BounceEnv(episode_frames=60)
    env.reset(seed=0, options={"scene": duel()})
    steps = [env.step(2) for _ in range(60)]
    scored = [t for t, s in enumerate(steps) if s[1] > 0]
    touches = [t for t, s in enumerate(steps) if (s[4]["truth"]["contacts"][:, 1] == 1).any()]
    assert len(scored) >= 1
    assert len(touches) > len(scored)
    assert all(b - max(t for t in touches if t < b) > REARM_FRAMES for b in scored[1:])
    assert not any(s[2] for s in steps)
    assert [s[3] for s in steps] == [False] * 59 + [True]


@pytest.mark.parametrize("scenario", ["billiards", "stack", "pendulum"])
def test_a_restored_state_replays_and_a_pickled_one_too(scenario):
    env = BounceEnv(scenario)
    env.reset(seed=5)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=80)
    for a in actions[:30]:
        env.step(a)
    state = pickle.loads(pickle.dumps(env.get_state()))
    twin = pickle.loads(pickle.dumps(env))
    went_on = [env.step(a) for a in actions[30:]]
    copied = [twin.step(a) for a in actions[30:]]
    other = BounceEnv(scenario)
    frame, info = other.set_state(state)
    assert frame.shape == (64, 64, 3)
    assert info["caption"] == env.caption
    restored = [other.step(a) for a in actions[30:]]
    for a, b, c in zip(went_on, copied, restored, strict=True):
        assert a[1:4] == b[1:4] == c[1:4]
        for x in (b, c):
            np.testing.assert_array_equal(a[0], x[0])
            for key, value in a[4]["truth"].items():
                np.testing.assert_array_equal(value, x[4]["truth"][key])


def test_counterfactuals_change_one_thing():
    env = BounceEnv("parabola")
    env.reset(seed=2)
    for _ in range(5):
        env.step(0)
    state = env.get_state()
    start, g = state["world"].position_m[0], state["gravity_m_per_s2"]
    velocity = state["world"].velocity_m_per_s[0]
    ends = {}
    for factor in (0.0, 1.0, 3.0):
        env.set_state({**state, "gravity_m_per_s2": factor * g})
        for _ in range(10):
            _, _, _, _, info = env.step(0)
        ends[factor] = info["truth"]["position_m"][0]
        np.testing.assert_allclose(ends[factor], start + velocity + 0.5 * factor * g, atol=1e-9)
    # A heavier partner: the same collision with one mass changed.
    env = BounceEnv("collision")
    env.reset(seed=2)
    state = env.get_state()
    a, b = state["scene"].solids
    heavy = replace(state["scene"], solids=(a, replace(b, density_kg_per_m2=20.0)))
    speeds = []
    for scene in (state["scene"], heavy):
        _, info = env.set_state({**state, "scene": scene})
        before = info["truth"]["velocity_m_per_s"][1]
        for _ in range(30):
            _, _, _, _, info = env.step(0)
        speeds.append(np.linalg.norm(info["truth"]["velocity_m_per_s"][1] - before))
    assert 0 < speeds[1] < 0.5 * speeds[0]


def test_the_expert_solves_the_task_and_chance_does_not():
    returns = {"expert": [], "random": []}
    for seed in range(12):
        for name, total in returns.items():
            env = BounceEnv(terminate=True, detail=("short", "medium", "dense")[seed % 3])
            obs, info = env.reset(seed=seed)
            policy = bounce_expert if name == "expert" else RandomPolicy(env.action_space, hold=4)
            rng, reward = np.random.default_rng(seed), 0.0
            for _ in range(100):
                obs, reward, terminated, _, info = env.step(policy(obs, info, rng))
                if terminated:
                    break
            total.append(reward)
    assert np.mean(returns["expert"]) > 0.7
    assert np.mean(returns["expert"]) > np.mean(returns["random"]) + 0.3


def test_vector_environments_agree_with_single_ones():
    vector = gym.make_vec("envs:Bounce-v0", num_envs=2, vectorization_mode="sync", scenario="billiards")
    frames, _ = vector.reset(seed=[7, 8])
    stepped = vector.step(np.array([1, 2]))
    for k, seed in enumerate((7, 8)):
        single = BounceEnv("billiards")
        np.testing.assert_array_equal(single.reset(seed=seed)[0], frames[k])
        np.testing.assert_array_equal(single.step(k + 1)[0], stepped[0][k])
    vector.close()


def test_every_scenario_has_an_episode_length_and_default_is_billiards():
    assert set(EPISODE_FRAMES) == set(SCENARIOS) == set(R.TRAIN)
    assert BounceEnv().scenario == "billiards"
