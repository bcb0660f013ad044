"""Datasets on disk: recorded from environments or imported from video, read as episodes and as training windows."""

from worldsim.data.dataset import Dataset, Episode
from worldsim.data.events import abrupt_change, event_frames, event_weights
from worldsim.data.readers import import_videos
from worldsim.data.record import record
from worldsim.data.windows import Windows
from worldsim.data.writer import DatasetWriter

__all__ = [
    "Dataset",
    "DatasetWriter",
    "Episode",
    "Windows",
    "abrupt_change",
    "event_frames",
    "event_weights",
    "import_videos",
    "record",
]
