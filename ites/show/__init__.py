"""Pages, films and reports of poses and runs."""
