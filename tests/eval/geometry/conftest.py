from pathlib import Path

import numpy as np
import pytest
from scene import film, path, room

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def golden():
    """Reference vectors of published implementations; their sources are in golden_geometry.json."""
    return dict(np.load(DATA / "golden_geometry.npz"))


@pytest.fixture(scope="session")
def walk():
    """Ten frames at 64 px along a strafing, turning camera, with all truth."""
    return film(room(0), path(10))
