import numpy as np
import pytest
from geometry_scene import DATA, film, path, room


@pytest.fixture(scope="session")
def golden():
    """Reference vectors of published implementations; their sources are in golden_geometry.json."""
    return dict(np.load(DATA / "golden_geometry.npz"))


@pytest.fixture(scope="session")
def walk():
    """Ten frames at 64 px along a strafing, turning camera, with all truth."""
    return film(room(0), path(10))
