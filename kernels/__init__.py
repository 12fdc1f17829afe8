"""Triton kernels, installed as `ites.kernels`; imported only when used.

There is one module per family, as in `ites.ops`. Its functions take and return the same tensors as
the C++ and CUDA ops of the same names. `philox` and `geometry` hold common code of the kernels.
Under `TRITON_INTERPRET=1` the kernels run on CPU tensors.

Simple rules beside each launch derive block sizes from the sizes of a call. Nothing is timed at run
time, so a call's result depends on its inputs alone. Every sum over poses has a fixed order:
partial sums per program, then one sum over the programs.
"""

PROGRAMS = 1056
"""Programs of a kernel that loops over poses: eight for each of an H100's 132 processors."""
