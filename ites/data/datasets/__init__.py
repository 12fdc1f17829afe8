"""Published data sets and motion capture, each made into a pose store."""
