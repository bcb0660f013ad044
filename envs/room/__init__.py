"""A 3D room of coloured solids under a moving camera (MuJoCo), drawn by ray casting on the CPU."""
