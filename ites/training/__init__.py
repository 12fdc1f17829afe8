"""Training: `engine` trains a stage, `loop` is the loop, `stages` defines the objectives.

`dataset` reads the poses. `feed` gathers the batches and `step` runs the optimiser. `schedule`
decides the events, `watch` checks the numbers and `log` shows them.
"""
