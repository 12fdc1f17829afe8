"""What a process needs: whole files, ranks, parts of an output, overlapping work, memory."""
