"""Conversion of published data sets and motion capture to pose stores."""
