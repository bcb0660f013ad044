"""Building blocks of the networks: attention, rotary positions, adaptive layers, the key/value cache."""
