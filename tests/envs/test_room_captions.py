"""Room's captions: the dense one reads back exactly, the others agree with the scene; events name what touched."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.captions import COLOURS, SYNONYMS, canonical
from envs.errors import CaptionError, SceneError, UnknownNameError
from envs.room.captions import caption
from envs.room.dense import parse, write
from envs.room.env import RoomEnv
from envs.room.events import events
from envs.room.sampling import Factors, sample_room, sample_scene
from envs.room.scene import SHAPES, Scene, Solid


def drawn(seed, **factors):
    rng, chosen = np.random.default_rng(seed), Factors(**factors)
    return sample_scene(rng, chosen, sample_room(rng, chosen))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), words=st.none() | st.integers(0, 2**32 - 1), lights=st.integers(1, 3))
def test_dense_captions_read_back_exactly(seed, words, lights):
    scene = drawn(seed, num_lights=lights, num_objects=(0, 5))
    text = write(scene, None if words is None else np.random.default_rng(words))
    assert parse(text) == scene
    assert parse("  " + text.upper().replace(" ", "\n ")) == scene


def test_dense_captions_read_back_what_sampling_never_draws():
    scene = Scene(
        room_m=(6, 5.5, 3),
        solids=(),
        lights_m=((0.0, 0.0, 1e-07), (1.0, -1.0, 2.5)),
        light_power=0.5,
        gravity_m_per_s2=(0.0, 1e-30, 3.0),
    )
    assert parse(write(scene)) == scene


def named(text):
    """(colour, shape) pairs in a text, by canonical names."""
    words = text.replace(",", " ").replace(".", " ").split()
    found = set()
    for first, second in pairwise(words):
        try:
            found.add((canonical(first, COLOURS), canonical(second, SHAPES)))
        except CaptionError:
            continue
    return found


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), detail=st.sampled_from(["short", "medium"]))
def test_shorter_captions_name_exactly_the_solids(seed, detail):
    scene = drawn(seed)
    text = caption(scene, detail=detail, rng=np.random.default_rng(seed))
    assert named(text) == {(s.colour, s.shape) for s in scene.solids}
    target = scene.solids[scene.target - 1]
    assert named(text.rsplit(". ", 1)[1]) == {(target.colour, target.shape)}


def test_wording_varies():
    scene = drawn(3)
    texts = {caption(scene, rng=np.random.default_rng(k)) for k in range(20)}
    assert len(texts) > 10
    assert caption(scene) == caption(scene)


def test_medium_captions_tell_size_place_and_motion():
    walker = {"room_m": (6.0, 6.0, 3.0), "lights_m": ((0.0, 0.0, 2.8),), "start_m": (-2.0, 0.0)}
    small = Solid(shape="sphere", colour="red", size_m=(0.3, 0.3, 0.3), position_m=(-1.0, 0.0, 0.3))
    large = Solid(shape="box", colour="blue", size_m=(0.4, 0.4, 0.4), position_m=(-2.0, 2.5, 1.5))
    rolling = replace(small, colour="green", position_m=(2.5, 0.5, 0.3), velocity_m_per_s=(0.0, 1.0, 0.0))
    text = caption(Scene(solids=(small, large, rolling), **walker), detail="medium")
    assert "The red sphere is small, near ahead, at rest." in text
    assert "The blue box is large, a few steps away to the left, about to fall." in text
    assert "The green sphere is small, far ahead, rolling." in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("turned by", "spun round by", 1), "spun round by"),
        (lambda t: t + " It rains.", "It rains"),
        (lambda t: t.replace(" sphere", " cone", 1), "cone"),
        (lambda t: t.replace("A red", "A mauve", 1), "mauve"),
        (lambda t: t + " Gravity is (0, 0, 1) m/s². Gravity is (0, 0, 2) m/s².", "gravity"),
        (lambda t: t.replace("The walker starts at", "The walker begins near", 1), "The walker begins near"),
        (lambda t: t.split(". ", 1)[1], "room"),
        (lambda t: t.replace(" m/s", " km/h", 1), "km/h"),
    ],
)
def test_captions_that_cannot_be_parsed_name_the_words(change, words):
    ball = Solid(
        shape="sphere",
        colour="red",
        size_m=(0.3, 0.3, 0.3),
        position_m=(0.0, 0.0, 0.3),
        quaternion=(0.0, 1.0, 0.0, 0.0),
        velocity_m_per_s=(1.0, 0.0, 0.0),
    )
    scene = Scene(room_m=(6.0, 6.0, 3.0), solids=(ball,), lights_m=((0.0, 0.0, 2.8),), start_m=(1.5, 1.5))
    text = change(write(scene))
    with pytest.raises(CaptionError, match=words.replace("(", r"\(")):
        parse(text)


def test_impossible_captions_are_refused():
    with pytest.raises(SceneError):
        parse(re.sub(r"The room measures \(\d+", "The room measures (0", write(drawn(0))))


def test_unknown_detail_is_refused():
    with pytest.raises(UnknownNameError, match="dense"):
        RoomEnv((4, 4), detail="denser")


def test_events_of_a_fall_a_hit_and_a_push():
    def ball(colour, x, y, z=0.3, vx=0.0):
        return Solid(
            shape="sphere",
            colour=colour,
            size_m=(0.3, 0.3, 0.3),
            position_m=(x, y, z),
            velocity_m_per_s=(vx, 0.0, 0.0),
            angular_velocity_rad_per_s=(0.0, vx / 0.3, 0.0),
        )

    solids = (
        ball("red", -1.0, 2.0, vx=2.0),
        ball("blue", 0.6, 2.0),
        ball("green", 2.0, -2.0, z=1.4),
        ball("pink", 0.0, 0.0),
    )
    scene = Scene(room_m=(6.0, 6.0, 3.0), solids=solids, lights_m=((0.0, 0.0, 2.8),), start_m=(-1.5, 0.0))
    env = RoomEnv((4, 4))
    _, info = env.reset(options={"scene": scene})
    truths = [info["truth"]]
    for _ in range(9):
        *_, info = env.step(1)
        truths.append(info["truth"])
    stacked = {k: np.stack([t[k] for t in truths]) for k in ("contacts", "velocity_m_per_s", "mass_kg")}
    found = events(scene, stacked["contacts"], stacked["velocity_m_per_s"], stacked["mass_kg"][0])
    # The first of each kind: the green sphere bounces and lands again.
    by_text = {e.text: e for e in reversed(found)}
    # A gap of 1 m at 2 m/s, slowly lost; a fall of 1.1 m takes 0.47 s; the walker covers its 0.9 m in six steps.
    assert by_text["The red sphere hits the blue sphere."].first == 5
    assert by_text["The green sphere lands on the floor."].first == 4
    assert by_text["The walker pushes the pink sphere."].first in {5, 6}
    assert not any("red sphere lands" in e.text or "blue sphere lands" in e.text for e in found)
    assert all(0 <= e.first < e.last <= 9 for e in found)
    varied = {
        e.text
        for k in range(8)
        for e in events(
            scene, stacked["contacts"], stacked["velocity_m_per_s"], stacked["mass_kg"][0], np.random.default_rng(k)
        )
    }
    assert len(varied) > len(found)


def test_every_word_for_a_solid_is_in_the_vocabulary():
    assert all(name in SYNONYMS for name in (*SHAPES, *COLOURS))
