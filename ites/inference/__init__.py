"""Lifting of 2D keypoints to 3D: files and streams of frames."""
