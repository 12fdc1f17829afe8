"""Process support: atomic files, ranks, parts of an output, overlapping work, memory."""
