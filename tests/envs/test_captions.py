"""Captions: shared vocabulary, dense captions that read back exactly, tasks, events with their frame spans."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.bounce.captions import caption, task
from envs.bounce.dense import parse
from envs.bounce.env import BounceEnv
from envs.bounce.events import events
from envs.bounce.ranges import splits
from envs.bounce.scenarios import SCENARIOS, make_scene
from envs.bounce.scene import PALETTE, SHAPES, Fixture, Rod, Scene, Solid
from envs.captions import (
    COLOURS,
    DETAILS,
    SYNONYMS,
    article,
    canonical,
    check_detail,
    counted,
    listed,
    number,
    plural,
    point,
    read_point,
    sentence,
    wording,
)
from envs.errors import CaptionError, SceneError, UnknownNameError

FINITE = st.floats(-1e6, 1e6, allow_nan=False)
SCENES = st.builds(
    lambda name, seed, split: make_scene(
        name, rng=np.random.default_rng(seed), split=splits(name)[split % len(splits(name))]
    ),
    st.sampled_from(list(SCENARIOS)), st.integers(0, 10_000), st.integers(0, 20),
)  # fmt: skip


@given(st.sampled_from(list(SYNONYMS)), st.integers(0, 1000), st.booleans())
def test_every_wording_reads_back_to_its_name(name, seed, many):
    word = wording(name, np.random.default_rng(seed))
    assert canonical(plural(word) if many else word.upper()) == name


def test_words_and_colours_are_told_apart():
    words = [w for variants in SYNONYMS.values() for w in variants]
    assert len(words) == len(set(words))
    assert all(np.linalg.norm(np.subtract(a, b)) > 70 for a, b in combinations(COLOURS.values(), 2))
    assert set(COLOURS) < set(SYNONYMS)


def test_english_forms():
    assert article("orange box") == "an orange box"
    assert article("red disc") == "a red disc"
    assert (counted(1, "box"), counted(2, "box"), counted(30, "disc")) == ("one box", "two boxes", "30 discs")
    assert [listed(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert sentence("it falls") == "It falls."


@given(st.lists(FINITE, min_size=1, max_size=4))
def test_numbers_and_points_read_back_exactly(values):
    assert [float(number(v)) for v in values] == values
    assert read_point(point(values), len(values)) == tuple(values)


@given(SCENES, st.integers(0, 100))
@settings(max_examples=150, deadline=None)
def test_dense_captions_of_every_scenario_read_back_exactly(scene, seed):
    assert parse(caption(scene, detail="dense", rng=np.random.default_rng(seed))) == scene
    assert parse(caption(scene, detail="dense")) == scene


@given(
    st.lists(
        st.builds(
            Solid, shape=st.sampled_from(SHAPES), colour=st.sampled_from(sorted(PALETTE)), radius_m=st.floats(0.01, 3),
            position_m=st.tuples(FINITE, FINITE), velocity_m_per_s=st.tuples(FINITE, FINITE), angle_rad=FINITE,
            angular_velocity_rad_per_s=FINITE, density_kg_per_m2=st.floats(1e-3, 1e3), friction=st.floats(0, 2),
            restitution=st.floats(0, 1), aspect=st.floats(1, 5), role=st.sampled_from(["object", "target", "hazard"]),
        ),
        max_size=1,
    ),
    st.tuples(FINITE, FINITE), st.booleans(), st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_any_numbers_survive_a_dense_caption(solids, gravity, rod, seed):
    scene = Scene(
        solids=tuple(solids),
        fixtures=(Fixture(kind="occluder", vertices_m=((0.1, 1 / 3), (2.0, 0.0), (2.0, 7.5)), radius_m=0.25),),
        rods=(Rod(solid=0, pivot_m=(1 / 7, 2e-9)),) if rod and solids else (),
        gravity_m_per_s2=gravity,
        walls=False,
        view_m=(20.0, 10.0),
    )
    assert parse(caption(scene, detail="dense", rng=np.random.default_rng(seed))) == scene


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A red disc, of radius 1 m, at (5, 5) m, wobbling madly, moving at (1, 2) m/s.", "'wobbling madly'"),
        ("A mauve disc, of radius 1 m, at (5, 5) m.", "'mauve'"),
        ("A red teapot, of radius 1 m, at (5, 5) m.", "'teapot'"),
        ("Hello there, robot.", "'Hello there, robot'"),
        ("A red disc, of radius one m, at (5, 5) m.", "'of radius one m'"),
        ("A red disc, of radius 1 m, of radius 2 m, at (5, 5) m.", "one clause about radius_m"),
        ("A red disc, of radius 1 m.", "clause about the position"),
        ("Nothing pulls. There is no gravity. There are no walls.", "one sentence about gravity"),
        ("The view measures 10 by 10 m. Nothing pulls.", "walls"),
    ],
)
def test_what_cannot_be_parsed_is_named(text, words):
    with pytest.raises(CaptionError) as error:
        parse(text)
    assert words in str(error.value)


def test_a_caption_of_an_impossible_scene_is_refused():
    text = "The view measures 10 by 10 m. Nothing pulls. The borders are open."
    disc = "A red disc, of radius 1 m, at (5, 5) m. "
    assert len(parse(disc + text).solids) == 1
    with pytest.raises(SceneError, match="overlap"):
        parse(disc + disc + text)


@given(SCENES, st.integers(0, 100), st.sampled_from(DETAILS))
@settings(max_examples=100, deadline=None)
def test_shorter_captions_name_what_is_in_the_scene(scene, seed, detail):
    text = caption(scene, detail=detail, rng=np.random.default_rng(seed)).lower()
    for solid in scene.solids:
        assert any(word in text for word in SYNONYMS[solid.colour])
        assert any(word in text for word in SYNONYMS[solid.shape])
    absent = set(COLOURS) - {s.colour for s in scene.solids}
    words = set(text.replace(",", " ").replace(".", " ").split())
    assert not words & {w for colour in absent for w in SYNONYMS[colour]}
    if scene.agent:
        told = {s.role: (s.colour, s.shape) for s in scene.solids if s.role in ("target", "hazard")}
        assert task(text if detail != "dense" else caption(scene, detail="dense")) == told


def test_wording_varies_and_plain_wording_does_not():
    scene = make_scene("billiards", rng=np.random.default_rng(0))
    for detail in DETAILS:
        varied = {caption(scene, detail=detail, rng=np.random.default_rng(k)) for k in range(20)}
        assert len(varied) > 10
        assert caption(scene, detail=detail) == caption(scene, detail=detail)


def test_a_caption_without_a_task_is_refused():
    with pytest.raises(CaptionError):
        task(caption(make_scene("chain", rng=np.random.default_rng(0)), detail="dense"))
    with pytest.raises(UnknownNameError):
        check_detail("tiny")


def recorded(scenario, frames, seed=1, scene=None):
    env = BounceEnv(scenario)
    _, info = env.reset(seed=seed, options={"scene": scene} if scene else None)
    truth = [info["truth"], *(env.step(0)[4]["truth"] for _ in range(frames))]
    return env.scene, *(np.array([t[k] for t in truth]) for k in ("contacts", "velocity_m_per_s", "position_m"))


def test_events_span_the_frames_of_their_contacts():
    scene, contacts, velocity, position = recorded("chain", 60)
    found = events(scene, contacts, velocity)
    assert len(found) >= 4
    for event in found:
        # A touch that begins just before a frame ends just after it.
        assert 1 <= event.last - event.first <= 2
        pair = {event.slot_a, event.slot_b}
        touching = [any(set(r[:2]) == pair for r in rows if r[0] >= 0) for rows in contacts]
        assert touching[event.first : event.last + 1] == [False] + [True] * (event.last - event.first)
        subject = scene.solids[event.slot_a]
        assert event.text.startswith(f"The {subject.colour} {subject.shape} hits the ")
        if event.slot_b >= 0:
            gap = np.linalg.norm(position[:, event.slot_a] - position[:, event.slot_b], axis=1)
            reach = subject.radius_m + scene.solids[event.slot_b].radius_m
            assert gap[event.first] >= reach - 0.03
            assert gap[event.first : event.last + 1].min() < reach + 0.6
    assert [e.first for e in found] == sorted(e.first for e in found)


def test_lasting_contacts_rest_or_slide():
    floor = Fixture(kind="floor", vertices_m=((0.0, 0.0), (10.0, 0.0), (10.0, 0.5), (0.0, 0.5)))
    box = Solid(shape="box", colour="red", radius_m=0.8, position_m=(3.0, 1.21), friction=0.9, restitution=0.0)
    above = Solid(shape="box", colour="blue", radius_m=0.6, position_m=(3.0, 2.453), friction=0.9, restitution=0.0)
    mover = Solid(
        shape="box", colour="green", radius_m=0.8, position_m=(6.0, 1.21), velocity_m_per_s=(1.5, 0.0), restitution=0.0
    )
    scene = Scene(solids=(box, above, mover), fixtures=(floor,), gravity_m_per_s2=(0.0, -5.0))
    env = BounceEnv("stack", slots=3)
    _, info = env.reset(options={"scene": scene})
    truth = [info["truth"], *(env.step(0)[4]["truth"] for _ in range(12))]
    texts = [
        e.text for e in events(scene, *(np.array([t[k] for t in truth]) for k in ("contacts", "velocity_m_per_s")))
    ]
    assert "The blue box rests on the red box." in texts
    assert "The red box rests on the floor." in texts
    assert "The green box slides along the floor." in texts
