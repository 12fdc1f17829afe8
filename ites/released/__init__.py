"""The released program: its checkpoints converted, its numbers compared with ours."""
