"""Bounce: rigid bodies in the plane, stepped by pymunk, with everything about them known."""
