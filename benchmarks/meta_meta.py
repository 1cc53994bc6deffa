"""What comparisons of the families of meta-meta-learning have found: `python -m benchmarks.meta_meta FOLDER...`.

Takes the folders of finished `metatower compare meta-meta` runs, one per family of tasks, and writes
`benchmarks/results/meta_meta.json` and the page `docs/meta-meta-results.md`. Rows on other families of tasks stay in
the file. To be run where the comparisons ran: the file names the machine.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.meta_meta_page import page
from metatower.core.errors import UserError
from metatower.recipes.compare_tables import RESULT
from metatower.training.files import read_json, write_json, write_text

ROOT = Path(__file__).parents[1]
FOUND, PAGE = ROOT / "benchmarks" / "results" / "meta_meta.json", ROOT / "docs" / "meta-meta-results.md"
LISTS = ("results", "paired")


def collected(old: dict[str, Any], comparisons: list[dict[str, Any]], remarks: list[str]) -> dict[str, Any]:
    """All rows, with those of these comparisons in the place of old ones on the same families of tasks."""
    new = {each["families"]: each for each in comparisons}
    kept = {name: about for name, about in old.get("comparisons", {}).items() if name not in new}
    for name, each in new.items():
        kept[name] = {key: value for key, value in each.items() if key not in LISTS}
        kept[name] |= {"machine": machine(), "remarks": remarks}
    rows = {
        which: [row for row in old.get(which, []) if row["families"] not in new]
        + [row for each in comparisons for row in each[which]]
        for which in LISTS
    }
    return {"command": "python -m benchmarks.meta_meta FOLDER...", "comparisons": kept, **rows}


def main(arguments: list[str] | None = None) -> int:
    """Reads the folders and writes both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*", help="of finished comparisons; none to write the page anew")
    parser.add_argument("--remark", action="append", default=[], help="a sentence that a reader of these needs to know")
    given = parser.parse_args(arguments)
    missing = [folder for folder in given.folders if not (folder / RESULT).exists()]
    if missing:
        print(f"{missing[0]} holds no {RESULT}. Expected the folder of a finished comparison.", file=sys.stderr)
        return 2
    try:
        old = read_json(FOUND) if FOUND.exists() else {}
        found = collected(old, [read_json(folder / RESULT) for folder in given.folders], given.remark)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    text = page(found)
    write_json(FOUND, found)
    write_text(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
