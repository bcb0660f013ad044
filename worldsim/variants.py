"""Guidance as rows of a batch: one set of rows for each evaluation that it combines.

Shape legend: B environments, V variants, F latent frames, L tokens of a text, D width.
"""

import torch
from torch import Tensor

from worldsim.controls import Controls
from worldsim.nn.passes import Conditions, TextKeys
from worldsim.state import State
from worldsim.transformer import VideoDiT


class Variants:
    """Conditions of all variants, stacked; what a variant leaves out is marked absent.

    Args:
        model: The transformer.
        names: What each leaves out, as in `Sampling.variants`.
    """

    def __init__(self, model: VideoDiT, names: tuple[str, ...]) -> None:
        self.model, self.names = model, names
        # Texts outlive frames: their keys and values are kept for the state's text they were computed from.
        self._texts: tuple[Tensor | None, Tensor | None, TextKeys] | None = None

    def conditions(self, state: State, controls: Controls) -> Conditions:
        """(V * B, F, ...) of frames with these controls, (B, F, ...), in episodes with the state's texts."""
        config = self.model.config
        return Conditions(
            actions=self.repeat(controls.actions) if config.action_dim else None,
            has_action=self._known(controls.has_action, "action"),
            text=self.text(state),
            camera=self.repeat(controls.camera) if config.camera_dim else None,
            has_camera=self._known(controls.has_camera, "camera"),
        )

    def text(self, state: State) -> Tensor | None:
        """(V * B, L, D), or None for a model without text."""
        if state.text is None or state.no_text is None or len(self.names) == 1:
            return state.text
        return torch.cat([state.no_text if name == "text" else state.text for name in self.names])

    def text_keys(self, state: State) -> TextKeys:
        """Each block's keys and values of the texts."""
        if self._texts is None or self._texts[0] is not state.text or self._texts[1] is not state.no_text:
            self._texts = (state.text, state.no_text, self.model.text_keys(self.text(state)))
        return self._texts[2]

    def repeat(self, x: Tensor) -> Tensor:
        """(B, ...) to (V * B, ...)."""
        return x if len(self.names) == 1 else x.repeat(len(self.names), *(1,) * (x.ndim - 1))

    def _known(self, has: Tensor, part: str) -> Tensor:
        return torch.cat([torch.zeros_like(has) if name == part else has for name in self.names])
