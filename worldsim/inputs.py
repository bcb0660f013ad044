"""Checks of what users pass to a simulator: environments, texts, seeds, frames and actions."""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from worldsim.errors import ActionError, ConfigError, FramesError, StateError, TextError
from worldsim.spaces import action_dim, action_vectors
from worldsim.text import check_unicode

Text = str | Sequence[str | None] | None
_SEEDS = range(-(2**63), 2**63)


def count_envs(frames: np.ndarray | None, text: Text, seed: int | Sequence[int], num_envs: int | None) -> int:
    """The number of environments that the arguments tell; 1 if none does.

    Raises:
        StateError: If they disagree, or tell of none.
    """
    told = {
        "num_envs": num_envs,
        "frames": len(frames) if isinstance(frames, np.ndarray) and frames.ndim == 5 else None,
        "text": len(text) if isinstance(text, Sized) and not isinstance(text, str) else None,
        "seed": len(seed) if isinstance(seed, Sized) else None,
    }
    sizes = {k: v for k, v in told.items() if v is not None}
    if len(set(sizes.values())) > 1 or any(not isinstance(v, (int, np.integer)) or v < 1 for v in sizes.values()):
        raise StateError(expected="one number of environments, at least 1", got=sizes, remedy="Make them agree.")
    return int(next(iter(sizes.values()), 1))


def checked_texts(text: Text, batch: int, *, known: bool) -> list[str | None]:
    """One text, or None, for each environment.

    Raises:
        TextError: If an entry is neither text nor None, or if there is text and the model does not know any.
    """
    texts = list(text) if isinstance(text, Sized) and not isinstance(text, str) else [text] * batch
    for entry in texts:
        if entry is not None and not isinstance(entry, str):
            raise TextError(expected="texts or None", got=type(entry).__name__, remedy="Pass a str.")
        if entry is not None and not known:
            raise TextError(expected="no text for a model without a text encoder", got=repr(entry), remedy="Pass None.")
        if entry is not None:
            check_unicode(entry)
    return texts


def checked_seeds(seed: int | Sequence[int], batch: int) -> list[int]:
    """One seed for each environment; from a single seed environment k takes seed + k.

    Raises:
        StateError: If a seed is not an integer of 64 bits.
    """
    seeds: list[Any] = list(seed) if isinstance(seed, Sized) else [seed]
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        seeds = [int(seed) + k for k in range(batch)]
    for entry in seeds:
        if isinstance(entry, bool) or not isinstance(entry, (int, np.integer)) or int(entry) not in _SEEDS:
            raise StateError(expected="seeds that are 64-bit integers", got=repr(entry), remedy="Pass integers.")
    return [int(s) for s in seeds]


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """A frame size as two plain integers.

    Raises:
        FramesError: If it is not two integers above 0.
    """
    found = tuple(size) if isinstance(size, Sized) else ()
    if len(found) != 2 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in found):
        raise FramesError(
            expected="a frame size as (height, width) above 0", got=size, remedy="Pass for example (64, 64)."
        )
    return int(found[0]), int(found[1])


def checked_device(device: str | torch.device) -> torch.device:
    """A device that tensors can be made on.

    Raises:
        ConfigError: If there is none of that name here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without CUDA
        raise ConfigError(
            expected="a device that is here",
            got=f"{device} ({str(error).splitlines()[0]})",
            remedy="Pass for example cpu.",
        ) from error


def checked_frames(frames: np.ndarray, batch: int) -> np.ndarray:
    """Given frames as uint8 (B, T, H, W, 3); a single video serves every environment.

    Raises:
        FramesError: If they are not uint8 (T, H, W, 3) or (B, T, H, W, 3).
    """
    array = isinstance(frames, np.ndarray)
    if not array or frames.dtype != np.uint8 or frames.ndim not in {4, 5} or frames.shape[-1] != 3 or 0 in frames.shape:
        raise FramesError(
            expected="frames as a uint8 array (T, H, W, 3) or (B, T, H, W, 3)",
            got=f"{frames.dtype} {frames.shape}" if array else type(frames).__name__,
            remedy="Convert them.",
        )
    return np.broadcast_to(frames, (batch, *frames.shape[-4:]))


def step_vectors(space: spaces.Space | None, actions: Any, batch: int, stride: int) -> np.ndarray:  # noqa: ANN401
    """One step's actions as float32 (B, 1, stride * action_dim).

    Args:
        space: Space of a single action.
        actions: (B, ...), or with a stride above 1 (B, stride, ...).
        batch: Number of environments.
        stride: Actions a step.

    Raises:
        ActionError: If they do not fit the space or the number of environments.
    """
    space = _some_space(space)
    vectors = action_vectors(space, actions, 1 if stride == 1 else 2)
    wanted = (batch,) if stride == 1 else (batch, stride)
    if vectors.shape[:-1] != wanted:
        raise ActionError(
            expected=f"actions for {wanted} (environments, then actions a step)",
            got=vectors.shape[:-1],
            remedy="Stack one action per environment.",
        )
    return vectors.reshape(batch, 1, -1)


def past_vectors(
    space: spaces.Space | None,
    actions: Any,  # noqa: ANN401 - any space's value
    batch: int,
    latents: int,
    stride: int,
) -> np.ndarray:
    """Actions between given frames as float32 (B, latents - 1, stride * action_dim).

    Args:
        space: Space of a single action.
        actions: (T - 1, ...) for all environments, or (B, T - 1, ...).
        batch: Number of environments.
        latents: Latent frames that the given frames make.
        stride: Actions a latent frame.

    Raises:
        ActionError: If they do not fit the space, the frames or the number of environments.
    """
    space = _some_space(space)
    leaf, leaf_space = _first_leaf(space, actions)
    axes = np.ndim(leaf) - len(leaf_space.shape or ())
    vectors = action_vectors(space, actions, 2 if axes == 2 else 1)
    wanted = (batch, (latents - 1) * stride)
    if vectors.shape[-2] != wanted[1] or (vectors.ndim == 3 and len(vectors) != batch):
        raise ActionError(
            expected=f"{wanted[1]} actions between the given frames, for all environments or each of {batch}",
            got=vectors.shape[:-1],
            remedy="actions[i] carries frame i to frame i+1.",
        )
    dim = action_dim(space) * stride
    return np.array(np.broadcast_to(vectors, (batch, *vectors.shape[-2:]))).reshape(batch, latents - 1, dim)


def count_actions(space: spaces.Space | None, actions: Any) -> int:  # noqa: ANN401 - any space's value
    """The length of a run of actions (T, ...).

    Raises:
        ActionError: If it has no such axis.
    """
    leaf, _ = _first_leaf(_some_space(space), actions)
    if not np.ndim(leaf):
        raise ActionError(expected="a run of actions (T, ...)", got=repr(leaf), remedy="Stack the actions.")
    return len(leaf)


def slice_actions(space: spaces.Space | None, actions: Any, start: int, stride: int) -> Any:  # noqa: ANN401
    """The actions of one step out of a run (T, ...), with a leading batch axis of one."""
    if isinstance(space, spaces.Dict):
        return {k: slice_actions(s, actions[k], start, stride) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [slice_actions(s, a, start, stride) for s, a in zip(space.spaces, actions, strict=True)]
    taken = np.asarray(actions[start : start + stride])
    return taken if stride == 1 else taken[None]


def _first_leaf(space: spaces.Space, actions: Any) -> tuple[Any, spaces.Space]:  # noqa: ANN401 - any space's value
    """The first array of a stacked action, and its space; `action_vectors` checks the rest."""
    while isinstance(space, (spaces.Dict, spaces.Tuple)):
        key = next(iter(space.spaces)) if isinstance(space, spaces.Dict) else 0
        try:
            actions, space = actions[key], space.spaces[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError) as error:
            raise ActionError(
                expected=f"actions of {space}", got=type(actions).__name__, remedy="Look at the world's action_space."
            ) from error
    try:
        return np.asarray(actions), space
    except ValueError as error:
        raise ActionError(expected="actions of one shape", got=str(error), remedy="Stack them.") from error


def _some_space(space: spaces.Space | None) -> spaces.Space:
    if space is None:
        raise ActionError(expected="no actions", got="some", remedy="This world takes None.")
    return space
