"""What a pose is: skeletons, cameras, rotations, metrics; no files, no networks."""
