"""Bytes that a compiled program reads and writes, loops counted as often as they run.

XLA's own `cost_analysis` counts the body of a loop once. Here the operands and results of every operation that touches
memory are added up from the text of the optimised program, times the trip counts that XLA writes beside its loops. What
stays in a cache counts like what does not, so that this is an upper bound of what goes to memory.
"""

import math
import re
from functools import cache

SIZE = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "iota", "partition-id"}
"""Operations that move nothing."""
_LINE = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][\w-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def count(program: str) -> float:
    """Bytes of one run of a program, given as the text of `compiled.as_text()`."""
    bodies: dict[str, list[tuple[str, str, str, str]]] = {}
    here, entry = "", ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            here = line.removeprefix("ENTRY ").split()[0].lstrip("%")
            entry = here if line.startswith("ENTRY") else entry
            bodies[here] = []
        elif found := _LINE.match(line):
            bodies[here].append(found.groups())
    sizes = {name: _bytes(shape) for body in bodies.values() for name, shape, _, _ in body}

    @cache
    def total(computation: str) -> float:
        moved = 0.0
        for name, _, operation, rest in bodies[computation]:
            if operation == "while":
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
                moved += (int(trips[1]) if trips else 1) * total(_named("body", rest))
            elif operation == "call":
                moved += total(_named("to_apply", rest))
            elif operation == "conditional":
                names = re.search(r"branch_computations=\{(.*?)\}", rest)
                moved += max(total(each.strip().lstrip("%")) for each in names[1].split(",")) if names else 0.0
            elif operation not in FREE:
                operands = re.findall(r"%([\w.-]+)", rest.split("), ")[0])
                moved += sizes[name] + sum(sizes.get(each, 0) for each in operands)
        return moved

    return total(entry)


def _named(key: str, rest: str) -> str:
    return re.search(rf"{key}=%([\w.-]+)", rest)[1]


def _bytes(shape: str) -> int:
    """Of an array, or of all arrays of a tuple."""
    arrays = _ARRAY.findall(shape)
    return sum(SIZE.get(kind, 4) * math.prod(int(n) for n in sides.split(",") if n) for kind, sides in arrays)
