"""The bounds in docs/kernels.md follow from the committed counts."""

from __future__ import annotations

import pytest

from benchmarks.ops import bounds, sass

ASSEMBLY = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDS.128 R4, [R2] ;
        /*0020*/                   FFMA R0, R0, R1, R2 ;
        /*0030*/                   STS [R3], R0 ;
        /*0040*/              @!P0 BRA 0x20 ;
        /*0050*/               @P1 BRA 0x10 ;
        /*0060*/                   EXIT ;
        /*0070*/                   BRA 0x70;
"""


def test_the_page_has_the_table_that_is_derived() -> None:
    page = bounds.PAGE.read_text(encoding="utf-8")
    assert bounds.replaced(page, bounds.table()) == page


def test_rounds_of_warps() -> None:
    assert bounds.rounds(544, 272) == 18  # two per thread, of nine warps
    assert bounds.rounds(128, 272) == 4
    assert bounds.rounds(408, 272) == 9 + 5
    assert bounds.rounds(0, 272) == 0


def test_loops_of_a_disassembly() -> None:
    found = sass.loops(ASSEMBLY)
    assert [depth for depth, _ in found] == [0, 1, 2]
    straight, outer, inner = (counts for _, counts in found)
    assert (straight["all"], outer["all"], inner["all"]) == (3, 2, 3)
    assert (outer["LDS.128"], inner["FFMA"], inner["STS.32"]) == (1, 1, 1)
    assert sum(counts["all"] for _, counts in found) == sass.count(ASSEMBLY)["all"]


def test_accesses_before_the_wait_for_the_launch_before_are_faults() -> None:
    late = ASSEMBLY + "/*0080*/ ACQBULK ; /*0090*/ LDG.E.128.CONSTANT R4, desc[UR8][R2.64] ;"
    copied = "/*0000*/ LDGSTS.E.128 [R9], desc[UR8][R4.64], P0 ;" + late
    soon = "/*0000*/ @!P0 LDG.E R4, desc[UR8][R2.64] ; /*0010*/ STG.E [R2], R4 ;" + late
    assert [sass.early(text) for text in (ASSEMBLY, late, copied, soon)] == [0, 0, 0, 2]
    row = {name: 0 for name in sass.COUNTS} | {"kernel": "k", "sm": 90, sass.EARLY: 2}
    assert sass.faults([row]) == ["k (sm_90): 2 accesses before the wait"]
    assert not sass.faults([row | {sass.EARLY: 0}])


def test_a_bound_is_the_sum_over_its_loops() -> None:
    loops = {
        number: {name: "0" for name in sass.COUNTS} | {"all": "40", "LDS.128": "3", "STS.64": "1"}
        for number in (0, 1)
    }
    kernel = bounds.Kernel("k", "k", 130.0, 10, {0: 2, 1: 5}, {1: 2})
    found = bounds.bound(kernel, loops)
    assert found.issue == 7 * 40 / 4 / 10
    assert found.shared == (7 * (3 * 4 + 2) - 5 * 2 * 3) / 10
    assert found.memory == pytest.approx(130 / (3.0e12 / 132 / 1.75e9))
    assert found.largest == "memory" and max(found) == found.memory
    with pytest.raises(ValueError, match="the machine code has changed, so KERNELS must"):
        bounds.bound(kernel._replace(trips={7: 1}), loops)


def test_every_read_of_one_place_is_a_read() -> None:
    counted = {(row["kernel"], int(row["loop"])): row for row in bounds.read(bounds.LOOPS)}
    for kernel in bounds.KERNELS:
        for number, reads in kernel.one_place.items():
            assert reads <= int(counted[kernel.name, number]["LDS.128"])
