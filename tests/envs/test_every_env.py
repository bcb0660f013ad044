"""What holds for every world, whatever is in it: conformance, seeds, the truth contract, masks, state as a value.

A new world joins by one line in `WORLDS`.
"""

import pickle
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import envs
from envs.bounce.scenarios import SCENARIOS
from envs.bounce.world import moment_kg_m2
from envs.policies import RandomPolicy
from worldsim.checkpoint import Checkpoint
from worldsim.config import ModelConfig, TokenizerConfig
from worldsim.simulator import Simulator
from worldsim.tokenizer import build_tokenizer
from worldsim.transformer import VideoDiT

WORLDS = {
    **{f"bounce {s}": ("envs:Bounce-v0", {"scenario": s, "size": (40, 56)}) for s in SCENARIOS},
    "bounce many": ("envs:Bounce-v0", {"split": "ood_count", "slots": 8, "detail": "dense", "terminate": True}),
    "bounce templates": ("envs:BounceTemplates-v0", {"split": "ood_template", "size": (40, 56)}),
    "room": ("envs:Room-v0", {"size": (32, 48)}),
    "room continuous": ("envs:Room-v0", {"size": (32, 32), "continuous": True, "detail": "medium"}),
    "room orbit": ("envs:Room-v0", {"size": (24, 24), "camera_path": "orbit", "terminate": True}),
}


# Learned worlds keep the same contract, but know no truth.
def camera_dream() -> Simulator:
    """A learned world, untrained, that takes the camera's motion and no actions."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TokenizerConfig(latent_channels=4, width=8, encoder_depth=1, decoder_depth=1))
    model = VideoDiT(ModelConfig(latent_channels=4, width=16, depth=2, heads=2, window=3, camera_dim=6))
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    ranges = (0.1, 0.2, 0.1, 0.3, 0.1, 0.5)
    world = Checkpoint(
        tokenizer=tokenizer, model=model, action_space=None, fps=10.0, frame_size=(16, 32), camera_range=ranges
    )
    return Simulator(world)


LEARNED = {
    "dream": ("worldsim:Dream-v0", {"checkpoint": "bounce", "render_mode": "rgb_array"}),
    "dream of a camera": ("worldsim:Dream-v0", {"checkpoint": camera_dream(), "render_mode": "rgb_array"}),
}
ALL = WORLDS | LEARNED
EVERY = pytest.mark.parametrize("name", WORLDS)
IN_BOUNCE = pytest.mark.parametrize("name", [n for n in WORLDS if n.startswith("bounce")])
LEARNED_TOO = pytest.mark.parametrize("name", ALL)
STEPS = 12

# Shapes of docs/architecture.md; N slots, M contacts, D dimensions, H and W pixels. C is free.
BOTH = {
    "present": ("N",), "segmentation": ("H", "W"), "mass_kg": ("N",), "contacts": ("M", "C"),
    "position_m": ("N", "D"), "velocity_m_per_s": ("N", "D"),
}  # fmt: skip
BOUNCE = {
    "angle_rad": ("N",), "angular_velocity_rad_per_s": ("N",), "centroid_px": ("N", 2), "full_masks": ("N", "H", "W"),
    "energy_j": ("N", 2), "momentum_kg_m_per_s": ("N", 2), "gravity_m_per_s2": (2,),
}  # fmt: skip
ROOM = {
    "depth_m": ("H", "W"), "normals": ("H", "W", 3), "world_from_camera": (4, 4), "K": (3, 3),
    "world_from_object": ("N", 4, 4), "object_velocity": ("N", 6),
}  # fmt: skip
TYPES = {
    "present": bool, "full_masks": bool, "segmentation": np.int16, "depth_m": np.float32, "normals": np.float32,
}  # fmt: skip


def make(name):
    world, config = ALL[name]
    return gym.make(world, disable_env_checker=True, **config).unwrapped


def play(env, seed, steps=STEPS):
    """Frames, rewards and infos of an episode of random actions."""
    policy, rng = RandomPolicy(env.action_space, hold=3), np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    frames, rewards, infos = [obs], [], [info]
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(policy(obs, info, rng))
        frames.append(obs)
        rewards.append(reward)
        infos.append(info)
        if terminated or truncated:
            break
    return np.array(frames), rewards, infos


@pytest.fixture(scope="module")
def played():
    made = {}
    for name in ALL:
        env = make(name)
        made[name] = env, [play(env, seed) for seed in (0, 1)]
    return made


def test_every_registered_world_is_here():
    ours = {f"envs:{spec.id}" for spec in gym.registry.values() if str(spec.entry_point).startswith("envs.")}
    assert ours == {world for world, _ in WORLDS.values()}
    assert envs.__doc__


@LEARNED_TOO
def test_gymnasium_finds_nothing_to_complain_about(name, recwarn):
    check_env(make(name), skip_render_check=False)
    complaints = [str(w.message) for w in recwarn if "not within" in str(w.message) or "determin" in str(w.message)]
    assert not complaints


@LEARNED_TOO
def test_the_same_seed_gives_the_same_episode(name, played):
    _, (first, other) = played[name]
    again = play(make(name), 0)
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    for a, b in zip(first[2], again[2], strict=True):
        assert a["caption"] == b["caption"]
        for key, value in a.get("truth", {}).items():
            np.testing.assert_array_equal(value, b["truth"][key])
    assert not np.array_equal(first[0][0], other[0][0])


@EVERY
def test_truth_has_the_shapes_and_types_of_the_contract(name, played):
    env, episodes = played[name]
    wanted = BOTH | (BOUNCE if name.startswith("bounce") else ROOM)
    sizes = {"N": env.slots, "H": env.observation_space.shape[0], "W": env.observation_space.shape[1]}
    sizes["D"] = 2 if name.startswith("bounce") else 3
    for _, _, infos in episodes:
        for info in infos:
            truth = info["truth"]
            assert set(truth) == set(wanted)
            sizes.setdefault("M", len(truth["contacts"]))
            sizes.setdefault("C", truth["contacts"].shape[1])
            for key, shape in wanted.items():
                assert truth[key].shape == tuple(sizes.get(s, s) for s in shape), key
                assert truth[key].dtype == TYPES.get(key, np.float64), key
                assert np.isfinite(truth[key]).all() or key == "depth_m", key


@EVERY
def test_captions_are_constant_sentences(name, played):
    _, episodes = played[name]
    for _, _, infos in episodes:
        captions = {info["caption"] for info in infos}
        assert len(captions) == 1
        (text,) = captions
        assert text[0].isupper()
        assert text.endswith(".")


@EVERY
def test_segmentation_shows_present_solids_only(name, played):
    _, episodes = played[name]
    for frames, _, infos in episodes:
        for frame, info in zip(frames, infos, strict=True):
            truth = info["truth"]
            shown = set(np.unique(truth["segmentation"])) - {0}
            assert shown <= {k + 1 for k in np.flatnonzero(truth["present"])}
            assert frame.shape[:2] == truth["segmentation"].shape
            if "full_masks" in truth:
                seen = np.stack([truth["segmentation"] == k + 1 for k in range(len(truth["present"]))])
                assert not (seen & ~truth["full_masks"]).any()
                assert not truth["full_masks"][~truth["present"]].any()


@EVERY
def test_motion_agrees_with_velocity_where_nothing_touches(name, played):
    env, episodes = played[name]
    dt = 1.0 / env.metadata["render_fps"]
    checked = 0
    for _, _, infos in episodes:
        for before, after in pairwise(infos):
            a, b = before["truth"], after["truth"]
            rows = np.concatenate([t["contacts"][t["contacts"][:, 0] >= 0] for t in (a, b)])
            free = a["present"] & b["present"]
            free[np.unique(rows[:, :2][rows[:, :2] >= 0]).astype(int)] = False
            if name == "bounce pendulum" or name.startswith("room"):
                free[0] = False
            mean = 0.5 * (a["velocity_m_per_s"] + b["velocity_m_per_s"])[free]
            moved = (b["position_m"] - a["position_m"])[free]
            np.testing.assert_allclose(moved, dt * mean, atol=1e-9)
            checked += int(free.sum())
    assert checked > 0 or name in ("bounce stack", "bounce ramp", "bounce pendulum") or name.startswith("room")


@IN_BOUNCE
def test_momentum_changes_by_weight_and_contacts_alone(name, played):
    env, episodes = played[name]
    for _, _, infos in episodes:
        for before, after in pairwise(infos):
            a, b = before["truth"], after["truth"]
            mass, gravity = a["mass_kg"][:, None], a["gravity_m_per_s2"]
            np.testing.assert_allclose(b["momentum_kg_m_per_s"], mass * b["velocity_m_per_s"], rtol=1e-12)
            push = np.zeros_like(a["momentum_kg_m_per_s"])
            for row in b["contacts"][b["contacts"][:, 0] >= 0]:
                push[int(row[0])] -= row[6:8]
                if row[1] >= 0:
                    push[int(row[1])] += row[6:8]
            change = b["momentum_kg_m_per_s"] - a["momentum_kg_m_per_s"] - push - 0.1 * mass * gravity
            # Where bodies rest or slide, the velocity at a frame is the mean of two half steps.
            slack = 0.02 * mass[:, 0] * np.abs(0.1 * gravity).max() + 1e-9
            # Motors and rods push without a contact.
            first = int(env.has_agent or name == "bounce pendulum")
            assert (np.abs(change).max(axis=1) <= slack)[first:].all()


@IN_BOUNCE
def test_energy_and_masks_are_those_of_the_objects(name, played):
    env, episodes = played[name]
    (height, width), scale = env.size, min(env.size) / 10.0
    for info in episodes[-1][-1]:  # the scene is that of the last episode
        t = info["truth"]
        for slot, solid in enumerate(env.scene.solids):
            velocity, spin = t["velocity_m_per_s"][slot], t["angular_velocity_rad_per_s"][slot]
            kinetic = 0.5 * solid.mass_kg * velocity @ velocity + 0.5 * moment_kg_m2(solid) * spin**2
            potential = -solid.mass_kg * t["position_m"][slot] @ t["gravity_m_per_s2"]
            np.testing.assert_allclose(t["energy_j"][slot], [kinetic, potential], rtol=1e-12, atol=1e-12)
            (x, y), reach = t["centroid_px"][slot], solid.outline.reach_m * scale
            if reach < x < width - reach and reach < y < height - reach:
                # Pixels at least half covered: along the edge a few are won and a few lost.
                area = solid.area_m2 * scale**2
                assert t["full_masks"][slot].sum() == pytest.approx(area, abs=0.2 * 2.0 * np.pi * reach + 3.0)


@EVERY
def test_contacts_name_existing_bodies(name, played):
    _, episodes = played[name]
    for _, _, infos in episodes:
        for info in infos:
            rows, present = info["truth"]["contacts"], info["truth"]["present"]
            used = rows[:, 0] >= 0
            assert (rows[~used, 0] == -1).all()
            assert (rows[~used, 1:] == 0).all()
            a, b = rows[used, 0].astype(int), rows[used, 1].astype(int)
            assert present[a].all()
            assert present[b[b >= 0]].all()
            assert (a != b).all()
            assert len({tuple(p) for p in rows[used, :2]}) == used.sum()


@EVERY
def test_a_state_is_a_value(name):
    env = make(name)
    play(env, 3, 6)
    state = pickle.loads(pickle.dumps(env.get_state()))
    twin = pickle.loads(pickle.dumps(env))
    rng = np.random.default_rng(0)
    actions = [RandomPolicy(env.action_space)(None, {}, rng) for _ in range(6)]
    one = [env.step(a) for a in actions]
    two = [twin.step(a) for a in actions]
    env.set_state(state)
    three = [env.step(a) for a in actions]
    for x, y, z in zip(one, two, three, strict=True):
        for other in (y, z):
            np.testing.assert_array_equal(x[0], other[0])
            assert x[1:4] == other[1:4]
            for key, value in x[4]["truth"].items():
                np.testing.assert_array_equal(value, other[4]["truth"][key])


@pytest.mark.parametrize("name", ["bounce billiards", "room"])
def test_worlds_in_other_processes_replay_exactly(name):
    """`make_vec` pickles the worlds' makers; what its processes give is what this one gives."""
    world, config = WORLDS[name]
    vector = gym.make_vec(world, num_envs=2, vectorization_mode="async", **config)
    try:
        seen = [vector.reset(seed=[5, 6])[0], *(vector.step(np.array([a, a + 1]))[0] for a in (1, 2, 0, 3))]
    finally:
        vector.close()
    for k, seed in enumerate((5, 6)):
        env = make(name)
        alone = [env.reset(seed=seed)[0], *(env.step(a + k)[0] for a in (1, 2, 0, 3))]
        np.testing.assert_array_equal([frames[k] for frames in seen], alone)


@EVERY
def test_what_is_given_is_not_shared(name):
    """Writing into an observation or a truth must not change the world."""
    env, untouched = make(name), make(name)
    for world in (env, untouched):
        world.reset(seed=4)
    action = env.action_space.sample()
    obs, *_, info = env.step(action)
    expected = untouched.step(action)
    for value in (obs, *info["truth"].values()):
        value[...] = 1
    after, reference = env.step(action), untouched.step(action)
    np.testing.assert_array_equal(after[0], reference[0])
    for key, value in reference[4]["truth"].items():
        np.testing.assert_array_equal(after[4]["truth"][key], value)
    assert expected[1] == pytest.approx(expected[1])


@pytest.mark.parametrize("seed", range(6))
def test_bounce_stays_between_its_walls(seed):
    env = make("bounce billiards")
    _, _, infos = play(env, seed, 60)
    width, height = env.scene.view_m
    reach = np.array([s.outline.reach_m for s in env.scene.solids])
    for info in infos:
        at = info["truth"]["position_m"][: len(reach)]
        # An impact is found after at most one substep; the smallest half-width of a box is reach / sqrt(2).
        assert (at > 0.7 * reach[:, None] - 0.05).all()
        assert (at < np.array([width, height]) - 0.7 * reach[:, None] + 0.05).all()
