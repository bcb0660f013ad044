"""What goes into passes of the transformer, and what comes out of them.

Shape legend: B sequences, F latent frames, C latent channels, h x w latent grid, N tokens of a frame, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from worldsim.errors import FramesError, TextError

TextKeys = Sequence[tuple[Tensor, Tensor] | None]
"""Each block's keys and values of the text, (B, L, H, D / H) each."""

Record = Callable[[int, Tensor, Tensor], None]
"""Receives a block's number and its keys and values over time, (B, F, N, H, D / H), the keys rotated."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the frames are conditioned on; every part may be absent.

    Attributes:
        actions: (B, F, action_dim); `actions[:, i]` led to frame i (frame 0 of an episode has none).
        has_action: (B, F) boolean; where False the learned absence of an action is used.
        text: (B, L, D) from `VideoDiT.encode_text`.
        camera: (B, F, camera_dim); `camera[:, i]` is the motion of the camera to frame i, in the units of training.
        has_camera: (B, F) boolean; where False the learned absence of such a motion is used.
        expected: (B, F, 2 C, h, w), what noisy frames are forecast to be and the spread of it; zeros for frames that
            are seen rather than denoised and for those that nothing precedes. None for zeros.
    """

    actions: Tensor | None = None
    has_action: Tensor | None = None
    text: Tensor | None = None
    camera: Tensor | None = None
    has_camera: Tensor | None = None
    expected: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the network says of each frame.

    Attributes:
        prediction: (B, F, C, h, w), of the configured kind.
        hidden: (B, F, N, D), last hidden tokens, for the heads.
    """

    prediction: Tensor
    hidden: Tensor


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One sequence of a packed batch.

    Attributes:
        latents: (F, C, h, w), of any number of frames and any grid divisible by the patch.
        levels: (F,) noise levels in [0, 1].
        positions: (F,) integer frame positions.
        conditions: Of this clip, with a batch axis of one.
    """

    latents: Tensor
    levels: Tensor
    positions: Tensor
    conditions: Conditions

    def alone(self) -> "Clips":
        """The same as a group of one."""
        return Clips(
            latents=self.latents[None], levels=self.levels[None], positions=self.positions, conditions=self.conditions
        )


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Sequences of one shape among those of a packed batch.

    Attributes:
        latents: (B, F, C, h, w), of any number of frames and any grid divisible by the patch.
        levels: (B, F) noise levels in [0, 1].
        positions: (F,) integer frame positions.
        conditions: Of these sequences.
    """

    latents: Tensor
    levels: Tensor
    positions: Tensor
    conditions: Conditions


TimeMask = Literal["causal", "bidirectional", "two_streams"]
"""Which frames of a sequence see which: the past within the window; all; or as `two_stream_mask` says."""


def check_clips(clips: Sequence[Clips]) -> None:
    """Raises FramesError without any clip, TextError if some have text and some have none."""
    if not clips:
        raise FramesError(expected="at least one clip", got="none", remedy="Pass some.")
    if len({c.conditions.text is None for c in clips}) > 1:
        raise TextError(
            expected="text for every clip or for none",
            got="some of each",
            remedy="Encode None for clips without text: `encode_text([None])`.",
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the passes over one new frame share, computed for all of them at once.

    Attributes:
        time: (B, 1, ...) rotation of the frame.
        sink_time: The same, of its queries to attention sinks; None for a cache without.
        action_token: (B, 1, 1, D), or None.
        modulations: For each block one tensor (B, 1, 12, D) a pass.
        ends: (B, 1, 2, D) a pass: shift and scale before the projection to latents.
        text_keys: As from `VideoDiT.text_keys`.
    """

    time: Tensor
    sink_time: Tensor | None
    action_token: Tensor | None
    modulations: Sequence[Sequence[Tensor]]
    ends: Sequence[Tensor]
    text_keys: TextKeys

    def modulations_of(self, index: int) -> list[Tensor]:
        """Each block's modulation in one pass."""
        return [of_block[index] for of_block in self.modulations]
