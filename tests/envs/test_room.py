"""Room as an environment: physics against closed forms, contracts, determinism, state as a value, bad input."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import envs  # noqa: F401 - registers the worlds
from envs.errors import ActionError, SceneError, UnknownNameError
from envs.room.env import REACH_M, RoomEnv
from envs.room.moves import ACTIONS
from envs.room.policies import Expert, Wander
from envs.room.scene import Scene, Solid
from envs.room.touches import CONTACT_COLUMNS, FLOOR

ROOM = (6.0, 6.0, 3.0)
STAY, FORWARD = ACTIONS.index("stay"), ACTIONS.index("forward")


def ball(x=0.0, y=0.0, z=0.3, radius=0.3, **changes):
    changes = {"colour": "red", "density_kg_per_m3": 50.0, **changes}
    return Solid(shape="sphere", size_m=(radius, radius, radius), position_m=(x, y, z), **changes)


def scene(*solids, **changes):
    start = {"start_m": (-2.5, -2.5), "lights_m": ((0.0, 0.0, 2.8),), "room_m": ROOM}
    return Scene(solids=solids, **{**start, **changes})


def roll_out(env, scene_or_seed, actions):
    options = {"scene": scene_or_seed} if isinstance(scene_or_seed, Scene) else None
    seed = None if options else scene_or_seed
    frame, info = env.reset(seed=seed, options=options)
    frames, truths = [frame], [info["truth"]]
    for action in actions:
        frame, *_, info = env.step(action)
        frames.append(frame)
        truths.append(info["truth"])
    return np.stack(frames), {k: np.stack([t[k] for t in truths]) for k in truths[0]}


def small(**options):
    return RoomEnv((8, 8), **{"slots": 4, **options})


@pytest.mark.parametrize("continuous", [False, True])
def test_gymnasium_contract(continuous):
    check_env(gym.make("envs:Room-v0", continuous=continuous, size=(16, 24)).unwrapped, skip_render_check=True)


def test_registered_and_vectorised():
    vector = gym.make_vec("envs:Room-v0", num_envs=2, vectorization_mode="sync", size=(8, 8))
    frames, _ = vector.reset(seed=3)
    frames, rewards, *_ = vector.step(np.array([1, 5]))
    assert frames.shape == (2, 8, 8, 3)
    assert rewards.shape == (2,)


# --------------------------------------------------------------------- physics


@pytest.mark.parametrize("gravity", [(0.0, 0.0, -9.81), (1.0, -2.0, -3.0)])
def test_free_flight_is_the_analytic_parabola(gravity):
    start, velocity, spin = np.array([-0.5, 0.2, 2.0]), np.array([0.8, 0.3, 0.4]), (0.0, 2.0, 1.0)
    thrown = ball(*start, velocity_m_per_s=tuple(velocity), angular_velocity_rad_per_s=spin)
    _, truth = roll_out(small(), scene(thrown, gravity_m_per_s2=gravity), [STAY] * 5)
    t, g = 0.1 * np.arange(6)[:, None], np.array(gravity)
    np.testing.assert_allclose(truth["velocity_m_per_s"][:, 1], velocity + g * t, atol=1e-9)
    np.testing.assert_allclose(truth["position_m"][:, 1], start + velocity * t + 0.5 * g * t**2, atol=1e-9)
    np.testing.assert_allclose(truth["object_velocity"][:, 1, 3:], np.broadcast_to(spin, (6, 3)), atol=1e-9)


def test_a_falling_ball_lands_when_it_must_and_gains_no_energy():
    speed, height = 0.5, 0.8
    thrown = ball(-1.0, 0.0, 0.3 + height, velocity_m_per_s=(speed, 0.0, 0.0))
    _, truth = roll_out(small(), scene(thrown), [STAY] * 8)
    t = 0.1 * np.arange(9)
    flying = t < np.sqrt(2 * height / 9.81)
    expected = 0.3 + height - 0.5 * 9.81 * t**2
    np.testing.assert_allclose(truth["position_m"][flying, 1, 2], expected[flying], atol=1e-9)
    touched = (truth["contacts"][:, :, 0] >= 0).any(axis=1)
    assert touched.argmax() == (~flying).argmax()
    # Energy never grows: what the correction of the fall gives back is what the steps took.
    z, v = truth["position_m"][:, 1, 2], truth["object_velocity"][:, 1]
    energy = 9.81 * z + 0.5 * np.sum(v[:, :3] ** 2, axis=1) + 0.2 * 0.3**2 * np.sum(v[:, 3:] ** 2, axis=1)
    assert (np.diff(energy) < 1e-6).all()


def test_a_resting_solid_presses_with_its_weight():
    _, truth = roll_out(small(), scene(ball()), [STAY] * 10)
    rows = truth["contacts"][-1]
    rows = rows[rows[:, 0] >= 0]
    assert rows[:, :2].tolist() == [[1, FLOOR]]
    mass = 50.0 * 4 / 3 * np.pi * 0.3**3
    assert truth["mass_kg"][-1, 1] == pytest.approx(mass)
    assert rows[0, CONTACT_COLUMNS.index("impulse_n_s")] == pytest.approx(mass * 9.81 * 0.1, rel=1e-3)
    np.testing.assert_allclose(rows[0, 2:8], [0, 0, 0, 0, 0, -1], atol=1e-3)


def test_collision_of_two_spheres_conserves_momentum():
    """Without gravity and far from walls; the contact's impulse is the change of momentum of either."""
    first = ball(-0.8, 0.1, 1.5, velocity_m_per_s=(2.0, 0.0, 0.0))
    second = ball(0.3, 0.0, 1.5, colour="blue", density_kg_per_m3=90.0)
    free = scene(first, second, gravity_m_per_s2=(0.0, 0.0, 0.0))
    _, truth = roll_out(small(), free, [STAY] * 6)
    momentum = np.einsum("n,tnd->td", truth["mass_kg"][0, 1:3], truth["velocity_m_per_s"][:, 1:3])
    np.testing.assert_allclose(momentum, np.broadcast_to(momentum[0], momentum.shape), rtol=1e-9, atol=1e-9)
    hits = truth["contacts"][truth["contacts"][:, :, 0] >= 0]
    assert (hits[:, :2] == [2, 1]).all()
    normal, impulse = hits[:, 5:8], hits[:, 8]
    pushed = (-normal * impulse[:, None]).sum(axis=0)
    change = truth["mass_kg"][0, 2] * truth["velocity_m_per_s"][-1, 2]
    # Friction takes a little of it sideways.
    np.testing.assert_allclose(change @ normal[0], pushed @ normal[0], rtol=0.02)


def test_rolling_without_slipping():
    speed = 0.9
    moving = ball(velocity_m_per_s=(speed, 0.0, 0.0), angular_velocity_rad_per_s=(0.0, speed / 0.3, 0.0))
    _, truth = roll_out(small(), scene(moving), [STAY] * 8)
    velocity = truth["object_velocity"][:, 1]
    np.testing.assert_allclose(velocity[:, 0], velocity[:, 4] * 0.3, atol=0.01)
    assert 0.8 < velocity[-1, 0] / speed <= 1.0


def test_object_velocity_is_the_derivative_of_the_pose():
    spinning = ball(z=1.5, angular_velocity_rad_per_s=(0.3, -0.5, 0.9), velocity_m_per_s=(0.2, 0.1, 0.0))
    _, truth = roll_out(small(), scene(spinning, gravity_m_per_s2=(0.0, 0.0, 0.0)), [STAY, STAY])
    poses, velocity = truth["world_from_object"][:, 1], truth["object_velocity"][:, 1]
    np.testing.assert_allclose((poses[2, :3, 3] - poses[0, :3, 3]) / 0.2, velocity[1, :3], atol=1e-9)
    # A free sphere turns about a fixed axis: the relative rotation is that about omega by |omega| dt.
    relative = poses[2, :3, :3] @ poses[0, :3, :3].T
    angle = np.arccos((np.trace(relative) - 1) / 2)
    axis = np.array([relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]])
    np.testing.assert_allclose(axis / (2 * np.sin(angle)) * angle / 0.2, velocity[1, 3:], atol=1e-6)


def test_the_walker_is_stopped_by_walls_and_pushes_solids():
    facing = scene(ball(0.0, 0.0), start_m=(-1.0, 0.0))
    _, truth = roll_out(small(), facing, [FORWARD] * 40)
    walker, pushed = truth["position_m"][:, 0, 0], truth["position_m"][:, 1, 0]
    # Nothing in the way at first: exactly one step a frame.
    np.testing.assert_allclose(np.diff(walker[:3]), 0.15, atol=1e-9)
    assert pushed[-1] > 2.5
    assert walker.max() < 3.0 - 0.3
    walker, sphere = truth["position_m"][:, 0], truth["position_m"][:, 1]
    assert (np.linalg.norm((walker - sphere)[:, :2], axis=1) > 0.6 - 0.03).all()
    _, truth = roll_out(small(), scene(start_m=(2.0, 0.0)), [FORWARD] * 10)
    assert truth["position_m"][-1, 0, 0] == pytest.approx(3.0 - 0.3, abs=0.01)


# ------------------------------------------------------------- determinism, state


def digest(seed):
    frames, truth = roll_out(RoomEnv((24, 32)), seed, [1, 1, 5, 3, 8, 1, 6, 2])
    sha = hashlib.sha256(frames.tobytes())
    for key in sorted(truth):
        sha.update(np.ascontiguousarray(truth[key]))
    return sha.hexdigest()


def test_exact_replay_across_processes():
    code = "import sys; sys.path.insert(0, 'tests/envs'); from test_room import digest; print(digest(7))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(7)
    assert digest(8) != digest(7)


def test_state_is_a_value():
    """A restored state, also a pickled one in another environment, has exactly the same future."""
    env, rng = RoomEnv((16, 16)), np.random.default_rng(0)
    env.reset(seed=2)
    for _ in range(7):
        env.step(int(rng.integers(9)))
    state = pickle.loads(pickle.dumps(env.get_state()))
    actions = rng.integers(9, size=12).tolist()
    first = [env.step(a) for a in actions]
    other = RoomEnv((16, 16))
    for again in (env, other, pickle.loads(pickle.dumps(env))):
        frame, info = again.set_state(state)
        assert (frame == again.render()).all()
        for action, (frame, reward, _, _, info) in zip(actions, first, strict=True):
            got, got_reward, _, _, got_info = again.step(action)
            np.testing.assert_array_equal(got, frame)
            assert got_reward == reward
            for key, value in info["truth"].items():
                np.testing.assert_array_equal(got_info["truth"][key], value)


def test_counterfactual_mass():
    """Struck by the same ball, a light one flies off faster than a heavy one; nothing else in the scene is touched."""
    striker = ball(-1.0, 0.0, velocity_m_per_s=(2.0, 0.0, 0.0))
    env = small()
    env.reset(options={"scene": scene(striker, ball(colour="blue"), ball(1.0, 2.0, colour="green"))})
    state, ends = env.get_state(), []
    for density in (20.0, 400.0):
        env.set_state(replace(state, scene=state.scene.with_solid(2, density_kg_per_m3=density)))
        for _ in range(8):
            *_, info = env.step(STAY)
        ends.append(info["truth"])
    assert ends[0]["mass_kg"][2] == pytest.approx(ends[1]["mass_kg"][2] / 20)
    assert ends[0]["velocity_m_per_s"][2, 0] > 3 * ends[1]["velocity_m_per_s"][2, 0] > 0
    np.testing.assert_allclose(ends[0]["position_m"][3], ends[1]["position_m"][3], atol=1e-4)


def test_counterfactual_gravity():
    env = small()
    env.reset(options={"scene": scene(ball(z=2.0))})
    state = env.get_state()
    env.set_state(replace(state, scene=replace(state.scene, gravity_m_per_s2=(0.0, 0.0, -1.62))))
    for _ in range(4):
        *_, info = env.step(STAY)
    assert info["truth"]["velocity_m_per_s"][1, 2] == pytest.approx(-1.62 * 0.4)


# -------------------------------------------------------------------- properties


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), motion=st.sampled_from(["rest", "fall", "roll", "mixed"]))
def test_truth_is_complete_and_consistent(seed, motion):
    env = RoomEnv((24, 24), factors={"motion": motion})
    space = env.observation_space
    frames, truth = roll_out(env, seed, np.random.default_rng(seed).integers(9, size=15).tolist())
    room = np.array(env.world.scene.room_m)
    assert all(frame in space for frame in frames)
    for key, value in truth.items():
        assert np.isfinite(value).all(), key
    used = truth["present"]
    assert (used == used[0]).all()
    assert used.sum(axis=1)[0] == len(env.world.scene.solids) + 1
    shown = np.unique(truth["segmentation"])
    assert set(shown.tolist()) <= {0, *(np.flatnonzero(used[0])[1:] + 1).tolist()}
    centres = truth["position_m"][:, used[0]]
    assert (np.abs(centres[..., :2]) < room[:2] / 2).all()
    assert (centres[..., 2] > 0).all()
    assert (centres[..., 2] < room[2]).all()
    np.testing.assert_array_equal(truth["position_m"], truth["world_from_object"][..., :3, 3])
    np.testing.assert_array_equal(truth["velocity_m_per_s"], truth["object_velocity"][..., :3])
    assert (truth["depth_m"] > 0).all()
    assert (truth["depth_m"] < np.linalg.norm(room)).all()
    assert (truth["mass_kg"][used] > 0).all()
    rows = truth["contacts"].reshape(-1, len(CONTACT_COLUMNS))
    rows = rows[rows[:, 0] >= 0]
    assert (rows[:, 8] > 0).all()
    assert (rows[:, 0] > rows[:, 1]).all()
    np.testing.assert_allclose(np.linalg.norm(rows[:, 5:8], axis=1), 1.0, atol=0.3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_solids_at_rest_stay_at_rest(seed):
    env = RoomEnv((4, 4), factors={"motion": "rest"})
    _, truth = roll_out(env, seed, [STAY] * 5)
    np.testing.assert_allclose(truth["position_m"][-1], truth["position_m"][0], atol=5e-3)


def test_factors_are_obeyed():
    env = RoomEnv((4, 4))
    options = {
        "num_objects": 2,
        "shapes": ("box",),
        "colours": ("green", "pink"),
        "size_m": (0.2, 0.25),
        "room_m": (5.0, 5.5),
        "num_lights": 2,
        "texture_seed": 9,
    }
    for seed in range(5):
        env.reset(seed=seed, options=options)
        scene = env.world.scene
        assert len(scene.solids) == 2
        assert {s.shape for s in scene.solids} == {"box"}
        assert {s.colour for s in scene.solids} <= {"green", "pink"}
        assert all(0.2 <= v <= 0.25 for s in scene.solids for v in s.size_m)
        assert all(5.0 <= v <= 5.5 for v in scene.room_m[:2])
        assert (len(scene.lights_m), scene.texture_seed) == (2, 9)


# ------------------------------------------------------------------ task, policies


def play(env, policy, seed):
    rng = np.random.default_rng(seed)
    frame, info = env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        frame, reward, terminated, truncated, info = env.step(policy(frame, info, rng))
        total, done = total + reward, terminated or truncated
    return total, terminated, info


def test_the_expert_arrives_and_chance_does_not():
    env = RoomEnv((4, 4), terminate=True, episode_frames=120)
    returns = {"expert": [], "random": []}
    for seed in range(6):
        total, arrived, _ = play(env, Expert(), seed)
        assert arrived
        assert env.target_gap_m <= REACH_M
        returns["expert"].append(total)
        returns["random"].append(play(env, lambda frame, info, rng: int(rng.integers(9)), seed)[0])
    assert np.mean(returns["expert"]) > 2 * np.mean(returns["random"])


def test_wandering_gets_around():
    """A persistent walker covers more ground than independent actions do."""

    def span(policy):
        env = RoomEnv((4, 4), factors={"num_objects": (0, 0)})
        rng, ways = np.random.default_rng(0), []
        for seed in range(4):
            frame, info = env.reset(seed=seed)
            policy.reset()
            track = [info["truth"]["position_m"][0]]
            for _ in range(60):
                frame, *_, info = env.step(policy(frame, info, rng))
                track.append(info["truth"]["position_m"][0])
            ways.append(np.ptp(track, axis=0)[:2].sum())
        return np.mean(ways)

    assert span(Wander(keep=0.8)) > 1.3 * span(Wander(keep=0.0))


def test_the_expert_arrives_with_continuous_actions():
    env = RoomEnv((4, 4), terminate=True, continuous=True)
    assert all(play(env, Expert(continuous=True), seed)[1] for seed in range(2))


def test_reward_is_the_way_gained_plus_one_on_arrival():
    env = small(terminate=True)
    target = scene(ball(1.0, 0.0), start_m=(-1.0, 0.0), target=1)
    env.reset(options={"scene": target})
    start, total, terminated = env.target_gap_m, 0.0, False
    assert start == pytest.approx(2.0 - 0.3 - 0.3)
    while not terminated:
        _, reward, terminated, *_ = env.step(FORWARD)
        total += reward
    assert total == pytest.approx(start - env.target_gap_m + 1.0)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("action", [9, -1, 1.5, float("nan"), "forward", [1], [1, [2]], None])
def test_actions_outside_the_space_are_refused(action):
    env = small()
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(action)


@pytest.mark.parametrize("action", [[0, 0, 0, np.nan], [2, 0, 0, 0], [0, 0, 0], 1])
def test_continuous_actions_outside_the_space_are_refused(action):
    env = small(continuous=True)
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(np.asarray(action, np.float32))


@pytest.mark.parametrize("action", [True, False, np.True_, np.array(True)])
def test_truth_values_are_no_actions(action):
    env = small()
    env.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(action)


def test_nothing_is_drawn_without_a_render_mode():
    env = small(render_mode=None)
    frame, _ = env.reset(seed=0)
    assert env.render() is None
    drawing = small()
    np.testing.assert_array_equal(drawing.reset(seed=0)[0], frame)
    np.testing.assert_array_equal(drawing.render(), frame)


def test_a_world_that_was_not_reset_says_so():
    for call in (lambda: small().step(0), lambda: small().render(), lambda: small().get_state()):
        with pytest.raises(gym.error.ResetNeeded):
            call()


@pytest.mark.parametrize(
    "options",
    [
        {"num_objects": (40, 40)},
        {"size_m": (1.5, 1.6)},
        {"size_m": (0.3, 0.2)},
        {"size_m": (float("nan"), 1.0)},
        {"room_m": (0.5, 0.5)},
        {"num_lights": 0},
        {"shapes": ()},
    ],
)
def test_impossible_scenes_are_refused(options):
    with pytest.raises(SceneError):
        RoomEnv((4, 4)).reset(seed=0, options=options)


@pytest.mark.parametrize(
    "options",
    [{"shape": "box"}, {"shapes": ("cone",)}, {"colours": ("mauve",)}, {"motion": "fly"}, {"camera_path": "orbits"}],
)
def test_unknown_names_are_refused(options):
    with pytest.raises(UnknownNameError):
        RoomEnv((4, 4)).reset(seed=0, options=options)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RoomEnv(64), "size"),
        (lambda: RoomEnv((4, 4)).reset(options=["motion"]), "mapping"),
        (lambda: RoomEnv((4, 4)).reset(options={"scene": 3}), "a Scene, alone"),
        (lambda: RoomEnv((4, 4)).reset(options={"scene": scene(), "motion": "rest"}), "motion"),
        (lambda: RoomEnv((4, 4)).set_state(None), "get_state"),
        (lambda: RoomEnv(factors={"num_objects": "two"}), "whole numbers"),
        (lambda: RoomEnv(factors={"num_objects": 2.5}), "whole numbers"),
        (lambda: RoomEnv(factors={"size_m": None}), "size_m"),
        (lambda: RoomEnv(factors={"shapes": 3}), "a list of shapes"),
        (lambda: RoomEnv(factors={"texture_seed": "a"}), "texture_seed"),
    ],
)
def test_what_is_no_option_or_state_is_named(call, words):
    with pytest.raises(SceneError, match=words):
        call()


@pytest.mark.parametrize(
    "changes",
    [
        {"solids": (ball(2.9),)},
        {"solids": (ball(z=0.1),)},
        {"start_m": (2.9, 0.0)},
        {"room_m": (1.0, 6.0, 3.0)},
        {"lights_m": ()},
        {"lights_m": ((9.0, 0.0, 1.0),)},
        {"target": 1},
        {"start_m": (float("nan"), 0.0)},
    ],
)
def test_impossible_hand_made_scenes_are_refused(changes):
    with pytest.raises(SceneError):
        scene(*changes.pop("solids", ()), **changes)


def test_too_many_solids_for_the_slots_are_refused():
    with pytest.raises(SceneError):
        RoomEnv((4, 4), slots=2).reset(options={"scene": scene(ball(), ball(1.0, 1.0, colour="blue"))})
