"""The tokenizer's layout in time, its standardisation, and what it refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import TOKENIZER, randomised

from worldsim.config import TokenizerConfig
from worldsim.errors import FramesError
from worldsim.tokenizer import build_tokenizer, check_frame_size, num_latents


def _tokenizer(stride=1):
    return randomised(build_tokenizer(TokenizerConfig(**(TOKENIZER.to_dict() | {"temporal_stride": stride}))))


def _video(frames, size=(16, 24), seed=0):
    return torch.rand(1, frames, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("stride", "frames", "latents"), [(1, 5, 5), (4, 1, 1), (4, 9, 3)])
def test_shapes_there_and_back(stride, frames, latents):
    tokenizer = _tokenizer(stride)
    found = tokenizer.encode(_video(frames))
    assert found.shape == (1, latents, 4, 2, 3)
    assert tokenizer.decode(found, starts=True).shape == (1, frames, 3, 16, 24)
    assert tokenizer.decode(found[:, 1:]).shape == (1, frames - 1, 3, 16, 24)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_latent_depends_on_its_own_frames_alone(stride):
    tokenizer = _tokenizer(stride)
    video = _video(1 + 2 * stride).requires_grad_(True)
    tokenizer.encode(video)[:, 1].square().sum().backward()
    touched = video.grad.abs().amax(dim=(0, 2, 3, 4)) > 0
    assert touched.tolist() == [False] + [True] * stride + [False] * stride


@pytest.mark.parametrize("stride", [1, 4])
def test_the_first_latent_of_a_video_is_that_of_its_first_image(stride):
    tokenizer, video = _tokenizer(stride), _video(9)
    torch.testing.assert_close(tokenizer.encode(video)[:, :1], tokenizer.encode(video[:, :1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [1, 4])
def test_decoding_streams(stride):
    """Latent by latent gives what the whole video gives, up to the rounding of another batch size."""
    tokenizer = _tokenizer(stride)
    latents = tokenizer.encode(_video(9))
    whole = tokenizer.decode(latents, starts=True)
    parts = [tokenizer.decode(latents[:, i : i + 1], starts=i == 0) for i in range(latents.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=0)


def test_groups_follow_the_order_of_time():
    tokenizer = _tokenizer(4)
    video = torch.arange(9.0).reshape(1, 9, 1, 1, 1).expand(1, 9, 3, 8, 8)
    groups = tokenizer.group(video)[0, :, ::3, 0, 0]
    assert groups.tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_measured_statistics_standardise():
    tokenizer = _tokenizer()
    raw = tokenizer.bottleneck(_video(8))
    tokenizer.measure(raw)
    found = tokenizer.encode(_video(8))
    torch.testing.assert_close(found.mean(dim=(0, 1, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(dim=(0, 1, 3, 4)), torch.ones(4), atol=1e-3, rtol=0)
    # Decoding undoes it.
    unscaled = tokenizer.from_bottleneck(raw).unflatten(2, (1, 3)).flatten(1, 2)
    torch.testing.assert_close(tokenizer.decode(found), unscaled, atol=1e-4, rtol=1e-4)


def test_a_channel_that_never_moves_does_not_blow_up():
    tokenizer = _tokenizer()
    tokenizer.measure(torch.zeros(1, 4, 4, 2, 2))
    assert bool(torch.isfinite(tokenizer.encode(_video(2))).all())


@given(st.integers(-2, 40), st.sampled_from([1, 4]))
def test_numbers_of_frames(frames, stride):
    if frames >= 1 and (frames - 1) % stride == 0:
        latents = num_latents(frames, stride)
        assert 1 + (latents - 1) * stride == frames
    else:
        with pytest.raises(FramesError, match="frames for a tokenizer"):
            num_latents(frames, stride)


@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from([1, 2, 3]))
def test_sizes_that_do_not_fit_are_named_with_ones_that_do(height, width, patch):
    unit = 8 * patch
    if height and width and height % unit == 0 and width % unit == 0:
        check_frame_size(height, width, TOKENIZER, patch=patch)
        return
    with pytest.raises(FramesError) as caught:
        check_frame_size(height, width, TOKENIZER, patch=patch)
    assert f"multiples of {unit} pixels" in str(caught.value)
    proposed = [tuple(map(int, part.split(" x "))) for part in caught.value.remedy[:-1].split("to ")[1].split(" or ")]
    for size in proposed:
        check_frame_size(*size, TOKENIZER, patch=patch)


def test_a_bound_tokenizer_takes_one_size():
    config = TokenizerConfig(frame_size=(24, 32))
    check_frame_size(24, 32, config)
    with pytest.raises(FramesError, match="24 x 32"):
        check_frame_size(32, 32, config)


def test_encoding_checks_the_size():
    with pytest.raises(FramesError, match="multiples of 8"):
        _tokenizer().encode(_video(1, size=(12, 16)))
