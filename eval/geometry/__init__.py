"""Does the video show one three-dimensional world filmed by a moving camera?"""
