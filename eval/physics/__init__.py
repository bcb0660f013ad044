"""Does the video obey physics?"""
