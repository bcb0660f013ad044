"""Action spaces: as plain data on disk, and as flat vectors for a network."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from worldsim.errors import ActionError, ConfigError


def space_to_dict(space: spaces.Space) -> dict[str, Any]:
    """Plain data that `json.dumps` takes and `space_from_dict` restores.

    Raises:
        ConfigError: If the space is not Discrete, MultiDiscrete, MultiBinary, Box, or a Dict or Tuple of such.
    """
    match space:
        case spaces.Discrete():
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.MultiDiscrete():
            start = {"start": space.start.tolist()} if space.start.any() else {}
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "dtype": str(space.dtype)} | start
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": list(space.shape)}
        case spaces.Box():
            low, high = (_numbers(x) for x in (space.low, space.high))
            return {"type": "Box", "low": low, "high": high, "shape": list(space.shape), "dtype": str(space.dtype)}
        case spaces.Dict():
            return {"type": "Dict", "spaces": {k: space_to_dict(v) for k, v in space.spaces.items()}}
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [space_to_dict(s) for s in space.spaces]}
    raise ConfigError(
        expected="a Discrete, MultiDiscrete, MultiBinary, Box, Dict or Tuple space",
        got=type(space).__name__,
        remedy="Wrap the environment so that its actions have such a space.",
    )


def space_from_dict(data: Mapping[str, Any]) -> spaces.Space:
    """The inverse of `space_to_dict`."""
    match data["type"]:
        case "Discrete":
            return spaces.Discrete(data["n"], start=data["start"])
        case "MultiDiscrete":
            return spaces.MultiDiscrete(data["nvec"], dtype=np.dtype(data["dtype"]).type, start=data.get("start"))
        case "MultiBinary":
            n = data["n"]
            return spaces.MultiBinary(n[0] if len(n) == 1 else n)
        case "Box":
            dtype, shape = np.dtype(data["dtype"]), tuple(data["shape"])
            low, high = (np.array(data[k], dtype=np.float64).reshape(shape).astype(dtype) for k in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        case "Dict":
            return spaces.Dict({k: space_from_dict(v) for k, v in data["spaces"].items()})
        case "Tuple":
            return spaces.Tuple([space_from_dict(s) for s in data["spaces"]])
    raise ConfigError(expected="a known space type", got=data["type"], remedy="The file is of a newer version.")


def action_dim(space: spaces.Space) -> int:
    """Length of the vectors that `action_vectors` makes."""
    return int(spaces.flatdim(space))


def action_vectors(space: spaces.Space, actions: Any, batch_ndim: int) -> np.ndarray:  # noqa: ANN401 - any space's value
    """Actions as float32 vectors: one-hot for discrete parts, values for continuous ones, scaled to [-1, 1] if bounded.

    Args:
        space: Space of a single action.
        actions: Stacked actions, (*batch, ...) arrays; for Dict and Tuple spaces a mapping or sequence of such.
        batch_ndim: Number of leading batch axes.

    Returns:
        (*batch, action_dim).

    Raises:
        ActionError: If a shape is wrong, or a value is not finite or lies outside the space.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(actions, Mapping) or set(actions) != set(space.spaces):
            got = sorted(actions) if isinstance(actions, Mapping) else type(actions).__name__
            raise _wrong(f"a mapping with the keys {sorted(space.spaces)}", got)
        return np.concatenate([action_vectors(s, actions[k], batch_ndim) for k, s in space.spaces.items()], axis=-1)
    if isinstance(space, spaces.Tuple):
        parts_given = len(actions) if isinstance(actions, Sequence) or np.ndim(actions) else None
        if parts_given != len(space.spaces):
            raise _wrong(f"{len(space.spaces)} parts", type(actions).__name__ if parts_given is None else parts_given)
        parts = [action_vectors(s, a, batch_ndim) for s, a in zip(space.spaces, actions, strict=True)]
        return np.concatenate(parts, axis=-1)
    try:
        values = np.asarray(actions)
    except ValueError as error:
        raise _wrong("as many numbers in each row", "rows of different lengths") from error
    # A truth value where a number is due is a comparison that slipped in, not action 0 or 1.
    truths = values.dtype == bool and isinstance(space, spaces.MultiBinary)
    if values.dtype.kind not in "iuf" and not truths:
        raise _wrong(f"numbers of {space}", f"{values.dtype} values")
    shape = space.shape or ()
    if values.ndim != batch_ndim + len(shape) or values.shape[batch_ndim:] != shape:
        raise _wrong(f"shape (*batch, {', '.join(map(str, shape))}) with {batch_ndim} batch axes", values.shape)
    if not np.isfinite(values).all():
        raise _wrong("finite numbers", "NaN or infinity")
    return _leaf_vectors(space, values, batch_ndim)


def stack_actions(space: spaces.Space, actions: list[Any]) -> Any:  # noqa: ANN401 - any space's value
    """A list of single actions as the stacked form that `action_vectors` takes."""
    if isinstance(space, spaces.Dict):
        return {k: stack_actions(s, [a[k] for a in actions]) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return [stack_actions(s, [a[i] for a in actions]) for i, s in enumerate(space.spaces)]
    return np.stack([np.asarray(a) for a in actions])


def _leaf_vectors(space: spaces.Space, values: np.ndarray, batch_ndim: int) -> np.ndarray:
    batch = values.shape[:batch_ndim]
    match space:
        case spaces.Discrete():
            return _one_hot(values - space.start, int(space.n), space)
        case spaces.MultiDiscrete():
            parts = np.moveaxis((values - space.start).reshape(*batch, -1), -1, 0)
            sizes = space.nvec.reshape(-1)
            return np.concatenate([_one_hot(p, int(n), space) for p, n in zip(parts, sizes, strict=True)], axis=-1)
        case spaces.MultiBinary():
            if not np.isin(values, (0, 1)).all():
                raise _wrong(f"values of {space}", np.unique(values)[:5].tolist())
            return values.reshape(*batch, -1).astype(np.float32)
        case spaces.Box():
            # One float32 rounding step of slack: policies compute in float32, spaces may be float64.
            slack = 1e-5 * np.maximum(1.0, np.abs(np.nan_to_num(space.high.astype(np.float64), posinf=1.0)))
            if (values < space.low - slack).any() or (values > space.high + slack).any():
                raise _wrong(f"values of {space}", f"[{values.min()}, {values.max()}]")
            bounded = np.isfinite(space.low) & np.isfinite(space.high)
            low = np.where(bounded, space.low, -1.0).astype(np.float64)
            high = np.where(bounded, space.high, 1.0).astype(np.float64)
            scaled = (values - low) / np.maximum(high - low, 1e-12) * 2.0 - 1.0
            return scaled.reshape(*batch, -1).astype(np.float32)
    raise _wrong("a supported space", type(space).__name__)


def _one_hot(index: np.ndarray, n: int, space: spaces.Space) -> np.ndarray:
    if not np.equal(index, np.floor(index)).all() or (index < 0).any() or (index >= n).any():
        raise _wrong(f"values of {space}", f"[{index.min()}, {index.max()}] (counted from 0)")
    return np.eye(n, dtype=np.float32)[index.astype(np.int64)]


def _numbers(bounds: np.ndarray) -> list[Any]:
    return bounds.astype(np.float64).reshape(-1).tolist()


def _wrong(expected: str, got: object) -> ActionError:
    return ActionError(expected=f"actions with {expected}", got=got, remedy="Look at the environment's action_space.")
