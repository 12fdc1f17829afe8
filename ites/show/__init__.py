"""Pages, films and reports that show poses and runs."""
