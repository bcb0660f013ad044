"""Oasis (etched-ai/open-oasis, 2024): its checkpoints as ours.

Oasis is a configuration of `VideoDiT`: modulation of its own in each block, plain queries and keys, pixel positions, no
tokens beside patches, v-prediction on a variance-preserving path; and a `VitTokenizer`. It was trained without windowed
attention, so its cache must be refreshed ("exact"); past frames are told level 15 of 1000 but are not noised.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worldsim.checkpoint import Checkpoint
from worldsim.config import ModelConfig, TokenizerConfig
from worldsim.errors import CheckpointError, ConfigError
from worldsim.nn.rope import pixel_frequencies, temporal_frequencies
from worldsim.sampling import Sampling
from worldsim.tokenizer import VitTokenizer
from worldsim.transformer import VideoDiT

LATENT_SCALE = 0.07843137255
CONTEXT_LEVEL = 15 / 1000  # step 14
ACTIONS = (
    "inventory", "ESC", "hotbar.1", "hotbar.2", "hotbar.3", "hotbar.4", "hotbar.5", "hotbar.6", "hotbar.7", "hotbar.8",
    "hotbar.9", "forward", "back", "left", "right", "cameraX", "cameraY", "jump", "sneak", "sprint", "swapHands",
    "attack", "use", "pickItem", "drop",
)  # fmt: skip
_FREQUENCIES = ("spatial_rotary_emb.freqs", "temporal_rotary_emb.freqs", "rotary_emb.freqs")

# Part of ours: part of theirs.
_MODEL = {
    "level.0": "t_embedder.mlp.0",
    "level.2": "t_embedder.mlp.2",
    "action": "external_cond",
    "modulation_out.1": "final_layer.adaLN_modulation.1",
    "unpatchify": "final_layer.linear",
    "patchify": "x_embedder.proj",
}
_BLOCK = {"{}.qkv": "{}_attn.to_qkv", "{}.out": "{}_attn.to_out", "{}_mlp.0": "{}_mlp.fc1", "{}_mlp.2": "{}_mlp.fc2"}
_HALVES = {"spatial": "s", "temporal": "t"}
_VAE = {
    "patchify": "patch_embed.proj",
    "to_moments": "quant_conv",
    "from_latent": "post_quant_conv",
    "unpatchify": "predictor",
    "encoder.norm": "enc_norm",
    "decoder.norm": "dec_norm",
}
_VAE_BLOCK = {
    "norm_attention": "norm1",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "norm_mlp": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def import_open_oasis(
    dit: str | Path,
    vae: str | Path,
    *,
    frame_size: tuple[int, int] = (360, 640),
    window: int = 32,
    vae_heads: int = 16,
    action_names: tuple[str, ...] = ACTIONS,
    fps: float = 20.0,
    steps: int = 10,
) -> Checkpoint:
    """Oasis' two weight files as a checkpoint.

    What the weights do not tell are arguments; they default to the released model's.

    Args:
        dit: The transformer's safetensors file.
        vae: The tokenizer's safetensors file.
        frame_size: (H, W) of its frames.
        window: Frames that it was trained on.
        vae_heads: Attention heads of the tokenizer.
        action_names: Names of the entries of an action vector; buttons are 0 or 1, camera motion lies in [-1, 1].
        fps: Frames per second.
        steps: Denoising steps a frame.

    Raises:
        CheckpointError: If a file is missing, damaged or not Oasis', or has NaN weights.
        ConfigError: If an argument does not fit the weights.
    """
    dit, vae = Path(dit), Path(vae)
    model_weights, vae_weights = _read(dit), _read(vae)
    try:
        model_config = _model_config(model_weights, window)
        tokenizer_config = _tokenizer_config(vae_weights, frame_size, vae_heads)
    except KeyError as error:
        raise _foreign(f"{dit} and {vae}", f"no weight named {error}") from error
    if len(action_names) != model_config.action_dim:
        raise ConfigError(
            expected=f"{model_config.action_dim} action names, as the weights take",
            got=len(action_names),
            remedy="Name them.",
        )
    model, tokenizer = VideoDiT(model_config), VitTokenizer(tokenizer_config)
    _check_frequencies(model_weights, model_config, dit)
    _adopt(model, _model_state(model_weights, model_config), dit)
    _adopt(tokenizer, _tokenizer_state(vae_weights, tokenizer_config), vae)
    sampling = Sampling(steps=steps, cache="exact", context_level=CONTEXT_LEVEL, context_noise=False)
    return Checkpoint(
        tokenizer=tokenizer,
        model=model,
        action_space=spaces.Box(-1.0, 1.0, (len(action_names),), np.float32) if action_names else None,
        fps=fps,
        frame_size=frame_size,
        meta={"sampling": sampling.to_dict(), "action_names": list(action_names), "source": "open-oasis"},
    )


def _model_config(weights: Mapping[str, Tensor], window: int) -> ModelConfig:
    width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
    temporal = next((w for k, w in weights.items() if k.endswith(("t_attn.rotary_emb.freqs", _FREQUENCIES[1]))), None)
    if temporal is None:
        raise KeyError(_FREQUENCIES[1])
    cond = weights.get("external_cond.weight")
    return ModelConfig(
        latent_channels=channels,
        patch=patch,
        width=width,
        depth=_count_blocks(weights, "blocks"),
        heads=width // (2 * len(temporal)),
        mlp_ratio=weights["blocks.0.s_mlp.fc1.bias"].numel() / width,
        window=window,
        modulation="block",
        qk_norm=False,
        grid_positions="pixel",
        action_dim=0 if cond is None else cond.shape[1],
        action_token=False,
        heads_out=False,
        path="variance_preserving",
        prediction="velocity",
    )


def _tokenizer_config(weights: Mapping[str, Tensor], frame_size: tuple[int, int], heads: int) -> TokenizerConfig:
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    if width % (8 * heads):
        raise ConfigError(
            expected=f"a number of heads that divides {width} into multiples of 8", got=heads, remedy="Correct it."
        )
    return TokenizerConfig(
        kind="vit",
        spatial_stride=patch,
        latent_channels=weights["post_quant_conv.weight"].shape[1],
        width=width,
        encoder_depth=_count_blocks(weights, "encoder"),
        decoder_depth=_count_blocks(weights, "decoder"),
        heads=heads,
        latent_scale=LATENT_SCALE,
        frame_size=frame_size,
    )


def _model_state(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Their weights under our names; what is left over keeps its own name."""
    left = {k: v for k, v in weights.items() if not k.endswith(_FREQUENCIES)}
    names = {ours: theirs for ours, theirs in _MODEL.items() if ours != "action" or config.action_dim}
    for i in range(config.depth):
        for half, letter in _HALVES.items():
            names |= {f"blocks.{i}.{a.format(half)}": f"blocks.{i}.{b.format(letter)}" for a, b in _BLOCK.items()}
    state = _renamed(left, names)
    for i in range(config.depth):
        for part in ("weight", "bias"):
            name = "blocks.{}.{}_adaLN_modulation.1." + part
            halves = [left.pop(n) for n in (name.format(i, h) for h in _HALVES.values()) if n in left]
            if len(halves) == len(_HALVES):
                state[f"blocks.{i}.modulation.1.{part}"] = torch.cat(halves)
    if "action.bias" in state:  # they tell the absence of an action as a vector of zeros
        state["no_action"] = state["action.bias"].clone()
    return _flat_patches(state) | left


def _tokenizer_state(weights: Mapping[str, Tensor], config: TokenizerConfig) -> dict[str, Tensor]:
    left, names = dict(weights), dict(_VAE)
    for coder, depth in (("encoder", config.encoder_depth), ("decoder", config.decoder_depth)):
        for i in range(depth):
            names |= {f"{coder}.blocks.{i}.{a}": f"{coder}.{i}.{b}" for a, b in _VAE_BLOCK.items()}
    state = _renamed(left, names)
    return _flat_patches(state) | left


def _renamed(left: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Moves the weights and biases of parts out of `left`, under their new names."""
    pairs = [(f"{a}.{part}", f"{b}.{part}") for a, b in names.items() for part in ("weight", "bias")]
    return {ours: left.pop(theirs) for ours, theirs in pairs if theirs in left}


def _flat_patches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A convolution whose stride is its size is a linear map of patches in the order (channel, row, column)."""
    return {k: v.flatten(1) if k == "patchify.weight" else v for k, v in state.items()}


def _check_frequencies(weights: Mapping[str, Tensor], config: ModelConfig, file: Path) -> None:
    """Ours are computed; a model that was fine-tuned with other frequencies would silently turn into noise."""
    head_dim = config.width // config.heads
    ours = {
        "t_attn.rotary_emb.freqs": temporal_frequencies(head_dim),
        "temporal_rotary_emb.freqs": temporal_frequencies(head_dim),
        "s_attn.rotary_emb.freqs": pixel_frequencies(head_dim // 4, 128.0),
        "spatial_rotary_emb.freqs": pixel_frequencies(head_dim // 4, 128.0),
    }
    for name, found in weights.items():
        wanted = next((f for ending, f in ours.items() if name.endswith(ending)), None)
        if wanted is None:
            continue
        same = found.shape == wanted.shape and torch.allclose(found.double(), wanted, rtol=1e-4, atol=0.0)
        if not same:
            raise _foreign(file, f"other rotary frequencies in {name}")


def _adopt(module: nn.Module, state: Mapping[str, Tensor], file: Path) -> None:
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or extra:
        raise _foreign(file, f"missing {missing[:3]}, unknown {extra[:3]}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape or not bool(torch.isfinite(tensor).all()):
            raise _foreign(file, f"{name} of shape {tuple(tensor.shape)}, or not finite")
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in state.items()})
    module.eval().requires_grad_(requires_grad=False)


def _count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max((int(k.split(".")[1]) for k in weights if k.startswith(f"{prefix}.")), default=-1)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            expected=f"a safetensors file at {file}",
            got=error,
            remedy="Fetch it again; pickled weights are not read, convert them to safetensors.",
        ) from error


def _foreign(file: object, got: str) -> CheckpointError:
    return CheckpointError(
        expected=f"the weights of an Oasis model in {file}", got=got, remedy="Pass the transformer first, then the VAE."
    )
