"""Templates of bodies: known kinds, held-out combinations."""

from collections import Counter

import gymnasium as gym
import pytest

import envs  # noqa: F401 - registers the worlds
from envs.bounce.templates import HELD_OUT, KINDS, TEMPLATES
from envs.errors import SceneError, UnknownNameError


def kinds_of(env):
    return frozenset(
        name
        for solid in env.scene.solids[1:]
        for name, (shape, (low, high)) in KINDS.items()
        if solid.shape == shape and low <= solid.radius_m <= high
    )


def test_held_out_templates_are_balanced_and_never_trained_on():
    assert len(set(HELD_OUT)) == 8
    assert len(TEMPLATES["train"]) == 48
    assert not set(HELD_OUT) & set(TEMPLATES["train"])
    assert set(Counter(name for template in HELD_OUT for name in template).values()) == {3}
    assert {name for template in TEMPLATES["train"] for name in template} == set(KINDS)


@pytest.mark.parametrize("split", TEMPLATES)
def test_scenes_are_of_the_splits_templates(split):
    env = gym.make("envs:BounceTemplates-v0", split=split).unwrapped
    seen = set()
    for seed in range(40):
        env.reset(seed=seed)
        assert kinds_of(env) == env.template
        seen.add(env.template)
    assert seen <= set(TEMPLATES[split])
    assert len(seen) > 6
    env.reset(seed=0)
    first = env.scene
    env.reset(seed=0)
    assert env.scene == first


def test_what_the_template_decides_cannot_be_fixed():
    env = gym.make("envs:BounceTemplates-v0").unwrapped
    with pytest.raises(SceneError, match="template decides"):
        env.reset(options={"count": 2})
    env.reset(seed=0, options={"gravity_m_per_s2": 0.0})
    assert env.scene.gravity_m_per_s2[1] == 0.0
    with pytest.raises(UnknownNameError, match="ood_template"):
        gym.make("envs:BounceTemplates-v0", split="ood_templates")
