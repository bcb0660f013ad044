"""One model, many tasks: what is given stays, what is asked for is made, and nothing depends on chance but the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldsim.checkpoint import Checkpoint
from worldsim.config import ModelConfig, TextConfig, TokenizerConfig
from worldsim.errors import ConfigError, FramesError, TextError
from worldsim.generate import _denoise_window, _encode, connect, edit, extend, text_to_video
from worldsim.simulator import Simulator
from worldsim.tokenizer import build_tokenizer
from worldsim.transformer import Output, VideoDiT


def simulator(*, text: bool = True, stride: int = 1) -> Simulator:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(TokenizerConfig(latent_channels=4, width=8, temporal_stride=stride))
    words = TextConfig(buckets=32, slots=2) if text else None
    model = VideoDiT(
        ModelConfig(latent_channels=4, width=16, depth=2, heads=2, window=4, action_dim=3 * stride, text=words)
    )
    for parameter in (*model.parameters(), *tokenizer.parameters()):
        parameter.data += 0.2 * torch.randn_like(parameter)
    return Simulator(
        Checkpoint(
            tokenizer=tokenizer,
            model=model,
            action_space=spaces.Discrete(3),
            fps=10.0,
            frame_size=(32, 32),
            meta={"training": {"dynamics": {"length": 6}}},
        )
    )


@pytest.fixture(scope="module")
def sim() -> Simulator:
    return simulator()


def video(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (count, 32, 32, 3), np.uint8)


def test_text_to_video_begins_like_an_image_of_the_same_seed(sim: Simulator) -> None:
    image = text_to_video(sim, "a red ball", num_frames=1, seed=4)
    longer = text_to_video(sim, "a red ball", num_frames=5, actions=[0, 1, 2, 0], seed=4)
    assert longer.shape == (5, 32, 32, 3)
    np.testing.assert_array_equal(image[0], longer[0])
    assert not np.array_equal(longer, text_to_video(sim, "two blue boxes", num_frames=5, actions=[0, 1, 2, 0], seed=4))


def test_guidance_reaches_frames_that_come_at_once(sim: Simulator) -> None:
    guided = Simulator(sim.checkpoint, sampling=replace(sim.sampling, text_guidance=3.0))
    latents = _encode(sim, video(5))
    start = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0])

    def solved(world: Simulator, text: str | None) -> torch.Tensor:
        unknown = world.inputs.of_window(None, 0, 5, first=1)
        return _denoise_window(world, latents, start, unknown, text=text, seed=1, steps=1)

    told, untold = solved(sim, "a red ball"), solved(sim, None)
    assert not torch.equal(told, untold)
    torch.testing.assert_close(solved(guided, "a red ball"), told + 2.0 * (told - untold))
    torch.testing.assert_close(solved(guided, None), untold)


def test_text_to_video_in_other_sizes(sim: Simulator) -> None:
    assert text_to_video(sim, None, num_frames=2, frame_size=(16, 48)).shape == (2, 16, 48, 3)
    with pytest.raises(FramesError, match="multiples of 16"):
        text_to_video(sim, None, num_frames=2, frame_size=(20, 32))


def test_temporal_stride_four_needs_whole_groups() -> None:
    strided = simulator(stride=4)
    assert text_to_video(strided, None, num_frames=9).shape[0] == 9
    with pytest.raises(ConfigError, match="multiple of 4"):
        text_to_video(strided, None, num_frames=8)


@pytest.mark.parametrize("count", [1, 4, 13])
def test_extending_either_way_keeps_the_given_frames(sim: Simulator, count: int) -> None:
    given = video(5)
    forward = extend(sim, given, num_frames=count, seed=1)
    backward = extend(sim, given, num_frames=count, direction="backward", seed=1)
    assert forward.shape == backward.shape == (5 + count, 32, 32, 3)
    np.testing.assert_array_equal(forward[:5], given)
    np.testing.assert_array_equal(backward[-5:], given)


def test_extending_forward_is_a_rollout(sim: Simulator) -> None:
    np.testing.assert_array_equal(
        extend(sim, video(3), num_frames=4, actions=[0, 1, 2, 0], seed=2),
        sim.rollout(frames=video(3), actions=[0, 1, 2, 0], seed=2),
    )


def test_connecting_keeps_both_ends_and_looks_at_both(sim: Simulator) -> None:
    before, after = video(5, 1), video(4, 2)
    joined = connect(sim, before, after, num_frames=3, seed=0)
    np.testing.assert_array_equal(joined[:5], before)
    np.testing.assert_array_equal(joined[-4:], after)
    for other in (connect(sim, video(5, 3), after, num_frames=3), connect(sim, before, video(4, 3), num_frames=3)):
        assert not np.array_equal(other[5:8], joined[5:8])


def test_connecting_more_than_a_window_is_refused(sim: Simulator) -> None:
    with pytest.raises(ConfigError, match="1 to 4 frames"):
        connect(sim, video(5), video(5), num_frames=5)
    with pytest.raises(FramesError):
        connect(sim, video(5), np.zeros((4, 48, 32, 3), np.uint8), num_frames=2)


def test_editing_keeps_length_and_listens_to_text_and_strength(sim: Simulator) -> None:
    given = video(11)
    edited = edit(sim, given, "a red ball", strength=0.6, seed=0)
    assert edited.shape == given.shape
    np.testing.assert_array_equal(edited, edit(sim, given, "a red ball", strength=0.6, seed=0))
    assert not np.array_equal(edited, edit(sim, given, "a blue box", strength=0.6, seed=0))
    assert not np.array_equal(edited, edit(sim, given, "a red ball", strength=0.9, seed=0))
    with pytest.raises(ConfigError, match="strength"):
        edit(sim, given, "a red ball", strength=0.0)
    with pytest.raises(TextError):
        edit(simulator(text=False), given, "a red ball")


def test_a_window_is_solved_exactly_by_a_model_that_knows_the_answer(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = _encode(sim, video(6))
    answer = torch.randn_like(latents)

    def oracle(x: torch.Tensor, *_: object, **__: object) -> Output:
        return Output(prediction=answer, hidden=x)

    monkeypatch.setattr(sim.model, "forward", oracle)
    start = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.3])
    unknown = sim.inputs.of_window(None, 0, 6, first=1)
    solved = _denoise_window(sim, latents, start, unknown, text=None, seed=0, steps=5)
    expected = torch.where((start == 0)[None, :, None, None, None], latents, answer)
    torch.testing.assert_close(solved, expected, atol=1e-4, rtol=1e-4)
