"""Triton kernels, installed as `ites.kernels`; imported only when used.

One module a family, as in `ites.ops`, whose functions take and return the same tensors as the C++
and CUDA ops of the same names. `philox` and `geometry` hold what the kernels share. Under
`TRITON_INTERPRET=1` they run on CPU tensors.

Block sizes follow from the sizes of a call by the small rules beside each launch; nothing is
timed at run time, so a call's result depends on its inputs alone. Every sum over poses is made in
a fixed order: partial sums a program, then one sum over the programs.
"""

PROGRAMS = 1056
"""Programs of a kernel that loops over poses: eight for each of an H100's 132 processors."""
