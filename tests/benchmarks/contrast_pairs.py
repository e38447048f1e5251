"""The figures by which ``--together`` judges whether two stacks fit, for all pairs of files.

    python -m tests.benchmarks.contrast_pairs --files A.nii.gz,B.nii.gz,C.nii.gz --output O.csv

A line for each pair, the first file fixed: the correlation before and after registration, the share of the tissue that
both show, the share of that tissue in which bright and dark are reversed, and why the second does not fit.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import warnings
from pathlib import Path

from common.program.exams.choose import find_candidates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", required=True, help="with commas between")
    parser.add_argument("--regions", default="", help="masks that lie on these files, likewise")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    files = options.files.split(",")
    regions = options.regions.split(",") if options.regions else [None] * len(files)
    candidate = find_candidates("stacks", None, {}, True, ())[1]
    assert candidate is not None
    config = candidate.make_workflow([], output_dir=Path(options.output).parent).parser
    read, inferer = config.get_parsed_content("read_stack"), config.get_parsed_content("inferer")
    with Path(options.output).open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["fixed", "moving", "before", "correlation", "overlap", "reversed", "left out"])
        for (fixed, region), (moving, _) in itertools.combinations(zip(files, regions, strict=True), 2):
            images = {file: read({"image": file})["image"][None] for file in (fixed, moving)}
            inferer.region, inferer.report = region, {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the reason is in the report
                inferer.place_stacks(images, first=True)
            found = inferer.report[moving]
            names = [Path(file).name.removesuffix(".nii.gz") for file in (fixed, moving)]
            row = [*names, *found["Correlation"], found["Overlap"], found["Reversed"], found.get("LeftOut", "")]
            rows.writerow(row)
            print(*row, sep=", ", flush=True)


if __name__ == "__main__":
    main()
