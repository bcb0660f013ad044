"""Checkpoints: a directory of safetensors, `config.json` and a card. Never pickle; strict about names and versions.

DIR/config.json            format version, configurations, action space, hashes of the weight files
DIR/model.safetensors      the transformer
DIR/tokenizer.safetensors  the tokenizer
DIR/README.md              the card: what it was trained on, how, and how good it is
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from worldsim.camera import MOTION_DIM
from worldsim.config import FORMAT_VERSION, ModelConfig, TokenizerConfig
from worldsim.errors import CheckpointError, ConfigError, UnknownNameError
from worldsim.spaces import space_from_dict, space_to_dict
from worldsim.tokenizer import Tokenizer, build_tokenizer
from worldsim.transformer import VideoDiT

_FINGERPRINT_SAMPLES = 256  # numbers read of each weight
SHIPPED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A learned world: networks and what is needed to use them.

    Attributes:
        tokenizer: Frames to latents and back.
        model: The transformer.
        action_space: Space of a single action, or None for a world without actions.
        fps: Frames per second of the training data.
        frame_size: (H, W) of the training data.
        reward_scale: Rewards are predicted in units of this.
        camera_range: The largest absolute value of each of the six numbers of a camera's motion in training
            (`worldsim.camera`): rad, rad, rad, m, m, m. None for a world that takes no camera motion.
        meta: Anything else worth keeping: data, training, versions.

    Raises:
        ConfigError: If the model takes camera motion and there is no range of it, or the other way about.
    """

    tokenizer: Tokenizer
    model: VideoDiT
    action_space: spaces.Space | None
    fps: float
    frame_size: tuple[int, int]
    reward_scale: float = 1.0
    camera_range: tuple[float, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found, stride = self.camera_range, self.tokenizer.config.temporal_stride
        dim = self.model.config.camera_dim
        fits = len(found) == MOTION_DIM and all(0.0 <= n < math.inf for n in found) if found is not None else True
        if not fits or dim != (0 if found is None else MOTION_DIM * stride):
            raise ConfigError(
                expected=f"a camera_range of {MOTION_DIM} numbers and camera_dim {MOTION_DIM * stride}, or neither",
                got=f"camera_range {found} and camera_dim {dim}",
                remedy="Correct the one that is wrong.",
            )


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits that tell models apart: the configuration, and numbers spread over every weight."""
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    configuration = (model.config, tokenizer.config, *(checkpoint.camera_range or ()))
    digest = hashlib.sha256(repr(configuration).encode())
    for name, tensor in (*model.state_dict().items(), *tokenizer.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // _FINGERPRINT_SAMPLES)]
        digest.update(name.encode())
        digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_checkpoint(checkpoint: Checkpoint, path: str | Path, *, card: str, dtype: torch.dtype | None = None) -> Path:
    """Writes a checkpoint directory atomically: it appears complete or not at all, replacing an older one.

    Args:
        checkpoint: What to write.
        path: The directory.
        card: Text of README.md.
        dtype: Type in which floating-point weights are stored; as they are by default.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        hashes = {}
        for name, module in (("model", checkpoint.model), ("tokenizer", checkpoint.tokenizer)):
            file = work / f"{name}.safetensors"
            save_file(_stored(module, dtype), file, metadata={"format": "pt"})
            file.chmod(0o644)  # safetensors writes files that only their owner may read
            hashes[file.name] = _sha256(file)
        (work / "config.json").write_text(json.dumps(_config(checkpoint, hashes), indent=1) + "\n")
        (work / "README.md").write_text(card)
        work.chmod(0o755)
        replace_directory(work, path)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return path


def load_checkpoint(name_or_path: str | Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a shipped checkpoint by name, or a directory, and checks everything about it.

    Raises:
        UnknownNameError: If it is neither a directory nor a shipped name.
        CheckpointError: If a file is missing, truncated, altered, foreign, of another version, or has NaN weights.
    """
    path = resolve(name_or_path)
    config = _read_config(path)
    try:
        model = VideoDiT(ModelConfig.from_dict(config["model"]))
        tokenizer = build_tokenizer(TokenizerConfig.from_dict(config["tokenizer"]))
        action_space = None if config["action_space"] is None else space_from_dict(config["action_space"])
        fps, size = float(config["fps"]), (int(config["frame_size"][0]), int(config["frame_size"][1]))
        ranges = None if config.get("camera_range") is None else tuple(map(float, config["camera_range"]))
    except (KeyError, TypeError, IndexError) as error:
        raise _broken(path / "config.json", "a complete config.json", f"{type(error).__name__}: {error}") from error
    for name, module in (("model", model), ("tokenizer", tokenizer)):
        _load_weights(module, path / f"{name}.safetensors", config.get("sha256", {}))
        module.eval().requires_grad_(requires_grad=False).to(device)
    return Checkpoint(
        tokenizer=tokenizer,
        model=model,
        action_space=action_space,
        fps=fps,
        frame_size=size,
        reward_scale=float(config.get("reward_scale", 1.0)),
        camera_range=ranges,
        meta=config.get("meta", {}),
    )


def shipped() -> list[str]:
    """Names of the checkpoints in the package."""
    return sorted(p.name for p in SHIPPED.iterdir() if (p / "config.json").exists()) if SHIPPED.exists() else []


def resolve(name_or_path: str | Path) -> Path:
    """The directory of a checkpoint.

    Raises:
        ConfigError: If it is neither text nor a path.
        UnknownNameError: If it is neither a directory nor a shipped name.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ConfigError(
            expected=f"a directory or a shipped name ({', '.join(shipped())})",
            got=repr(name_or_path),
            remedy="Pass a str or a path.",
        )
    path = Path(name_or_path)
    if os.path.isdir(path):  # noqa: PTH112 - pathlib's raises where a name is longer than the file system takes
        return path
    if str(name_or_path) in shipped():
        return SHIPPED / str(name_or_path)
    raise UnknownNameError(kind="checkpoint directory or shipped checkpoint", name=str(name_or_path), known=shipped())


def replace_directory(new: Path, path: Path) -> None:
    """Puts directory `new` in the place of `path`, which may exist."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        os.replace(path, old / path.name)  # noqa: PTH105 - the rename is the point
        os.replace(new, path)  # noqa: PTH105
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(new, path)  # noqa: PTH105


def _config(checkpoint: Checkpoint, hashes: dict[str, str]) -> dict[str, Any]:
    space = checkpoint.action_space
    return {
        "format": "worldsim-checkpoint",
        "version": FORMAT_VERSION,
        "model": checkpoint.model.config.to_dict(),
        "tokenizer": checkpoint.tokenizer.config.to_dict(),
        "action_space": None if space is None else space_to_dict(space),
        "fps": checkpoint.fps,
        "frame_size": list(checkpoint.frame_size),
        "reward_scale": checkpoint.reward_scale,
        "camera_range": None if checkpoint.camera_range is None else list(checkpoint.camera_range),
        "sha256": hashes,
        "meta": dict(checkpoint.meta),
    }


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _broken(file, "a readable config.json", error) from error
    if not isinstance(config, dict) or config.get("format") != "worldsim-checkpoint":
        raise _broken(file, "a worldsim checkpoint", "another kind of file")
    if config.get("version") != FORMAT_VERSION:
        raise CheckpointError(
            expected=f"checkpoint version {FORMAT_VERSION} in {file}",
            got=config.get("version"),
            remedy="Use the worldsim release that wrote it, or train it again with this one.",
        )
    return config


def _load_weights(module: nn.Module, file: Path, hashes: Mapping[str, str]) -> None:
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise _broken(file, "a complete safetensors file", error) from error
    expected = hashes.get(file.name)
    if expected is not None and _sha256(file) != expected:
        raise _broken(file, "the weights that config.json was written with", "other content (the hash differs)")
    own = module.state_dict()
    if set(own) != set(weights):
        missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        raise _broken(file, "the weights of this configuration", f"missing {missing[:3]}, unknown {extra[:3]}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise _broken(file, f"{name} of shape {tuple(own[name].shape)}", tuple(tensor.shape))
        if not torch.isfinite(tensor).all():
            raise _broken(file, "finite weights", f"NaN or infinity in {name}")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in weights.items()})


def _stored(module: nn.Module, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    if dtype is None:
        return state
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _broken(file: Path, expected: str, got: object) -> CheckpointError:
    return CheckpointError(
        expected=f"{expected} at {file}", got=got, remedy="Restore the checkpoint from its source, or save it again."
    )
