// Every family's loops, compiled once an instruction set (see dispatch.h).
#include "cpu/dictionary_loops.h"
#include "cpu/graph_loops.h"
#include "cpu/norm_loops.h"
#include "cpu/product_loops.h"
#include "cpu/rotation_loops.h"
