"""`make mutants`: change the code in small ways, one at a time, and count the changes that the tests notice.

mutmut makes the mutants and runs, for each, the tests that reach the changed function; pyproject.toml tells it which
files and which tests. It keeps every answer in mutants/, so a run that was stopped goes on where it stood. This script
draws which of the thousands of mutants are tried, tries survivors once more with the tests whose work happens in child
processes, which mutmut doesn't see, and looks for the rest in tests/mutants.md: there stand those that no test need
notice, with the reason. Ends with 1 where fewer than GOAL of the others are caught.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

from mutmut.__main__ import collect_source_file_mutation_data, copy_also_copy_files, copy_src_dir, create_mutants
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

GOAL = 0.97
KNOWN = Path("tests/mutants.md")
IN_CHILDREN = ["tests/test_state.py", "tests/test_distributed.py::test_two_processes_follow_the_loss_curve_of_one"]
SURVIVED, OPEN = ("survived", "no tests"), ("not checked", "check was interrupted by user")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("number", type=int, help="how many mutants are drawn")
    parser.add_argument("seed", type=int)
    parser.add_argument("files", nargs="*", help="draw from these files alone")
    arguments = parser.parse_args()

    Path("mutants").mkdir(exist_ok=True)
    copy_src_dir()
    copy_also_copy_files()
    create_mutants(1)
    known, found = KNOWN.read_text(encoding="utf-8"), statuses()
    names = [name for name, (path, _) in found.items() if not arguments.files or str(path) in arguments.files]
    # each has its own random number, so that a change elsewhere in the code leaves the sample as it is
    drawn = sorted(names, key=lambda name: random.Random(f"{arguments.seed} {name}").random())[: arguments.number]

    def unexplained(names: list[str]) -> list[str]:
        return [n for n in names if found[n][1] in SURVIVED and f"{change(n, found[n][0])}\n```" not in known]

    todo = [name for name in drawn if found[name][1] in OPEN] + unexplained(drawn)
    if todo:
        Path("mutants/mutmut-stats.json").unlink(missing_ok=True)  # which test reaches what, before the tests changed
        subprocess.run([Path(sys.executable).with_name("mutmut"), "run", "--max-children", "1", *todo], check=True)
        found = statuses()
    for name in unexplained(todo):
        look_again(name, found[name][0])
    found = statuses()

    tried = [name for name in drawn if found[name][1] not in OPEN]
    survivors = {name for name in tried if found[name][1] in SURVIVED}
    for path in sorted({found[name][0] for name in tried}):
        here = [name for name in tried if found[name][0] == path]
        print(f"{path}: {len(here)} tried, {len(survivors & set(here))} survived")
    new = unexplained(tried)
    for name in new:
        print(f"\nNot in {KNOWN}: {name}\n{change(name, found[name][0])}")
    caught, explained = len(tried) - len(survivors), len(survivors) - len(new)
    score = caught / max(1, len(tried) - explained)
    print(
        f"{len(tried)} of {len(drawn)} drawn were tried, of {len(found)} that there are: {caught} caught, {explained} "
        f"explained, {len(new)} missed; {score:.1%} of those that aren't explained were caught"
    )
    return int(score < GOAL or len(tried) < len(drawn))


def statuses() -> dict[str, tuple[Path, str]]:
    """Every mutant's file, and what became of it: "killed", "survived", "not checked", ..."""
    found, _ = collect_source_file_mutation_data(mutant_names=())
    return {name: (data.path, status_by_exit_code[code]) for data, name, code in found}


def change(name: str, path: Path) -> str:
    """What a mutant changes, in the words of tests/mutants.md."""
    function, owner = orig_function_and_class_names_from_key(name)
    lines = [line for line in get_diff_for_mutant(name, path=path).splitlines()[2:] if line[0] in "-+"]
    place = f"@@ {path} {function if owner is None else f'{owner}.{function}'} @@"
    return "\n".join([place, *(f"{line[0]} {line[1:].strip()}" for line in lines)])


def look_again(name: str, path: Path) -> None:
    """Try a survivor with IN_CHILDREN; its answer is kept where mutmut keeps its own."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-x", *IN_CHILDREN]
    place = {"MUTANT_UNDER_TEST": name, "PYTHONPATH": str(Path("mutants").resolve())}
    if subprocess.run(command, cwd="mutants", env=os.environ | place, capture_output=True).returncode == 1:
        data = SourceFileMutationData(path=path)
        data.load()
        data.exit_code_by_key[name] = 1
        data.save()


if __name__ == "__main__":
    sys.exit(main())
