"""Training: `engine` trains a stage, `loop` is the loop, `stages` says what is learned.

`dataset` reads the poses, `feed` and `step` bring them to the optimiser, `schedule` says what is
due, `watch` checks the numbers, `log` shows them.
"""
