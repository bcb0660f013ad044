"""Worlds whose truth is known, as Gymnasium environments."""

import gymnasium as gym

gym.register(id="Bounce-v0", entry_point="envs.bounce.env:BounceEnv")
gym.register(id="BounceTemplates-v0", entry_point="envs.bounce.templates:TemplateEnv")
gym.register(id="Room-v0", entry_point="envs.room.env:RoomEnv")
