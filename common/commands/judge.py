"""``python -m common judge``: what a result is worth, on data of one's own, also without HR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FOLDER = "judged"  # of the tables where none is named


def judge(
    *results: str,
    output_dir: str = _FOLDER,
    left_out: str | None = None,
    repeated: str | None = None,
    scan: str | None = None,
    hr: str | None = None,
    anatomy: bool = False,
    labels: str | None = None,
    lesions: str | None = None,
    interval: str | None = None,
    score: str | None = None,
    region: str | None = None,
    cases: str | None = None,
    calibrate: str | None = None,
    report: bool = False,
    overwrite: bool = False,
) -> None:
    """Judge super-resolved volumes: does tissue keep its volume, do lesions stay, what was added, does it repeat?

    Name the results, and what you have of the same person. Each option adds a table, <option>.csv, and pictures. With
    --report a page shows all.

    Args:
        results: super-resolved volumes of one person, by any methods: NIfTI, or DICOM series.
        output_dir: folder of tables, pictures and volumes.
        left_out: a stack of the exam that no result knows. Each result is seen through its slices and compared.
        repeated: the scans of two visits of one person, "first.nii.gz,second.nii.gz"; give their two results in this
            order. Says how much the results differ, against how much the scans do.
        scan: the scan that the results were made of. Says what a result added to it.
        hr: the truth on the grid of the results. Adds scores, and a test for invented detail.
        anatomy: whether to segment the brain and its tissues in all volumes, and to compare their sizes.
        labels: your own segmentation in its place: label maps, "maps/{name}_labels.nii.gz", or a command, "mytool
            {input} {output}".
        lesions: a mask of lesions: their contrast and volume in scan, interpolation and result.
        interval: half widths of the error bar of the result, as --uncertainty writes them; with --hr, how often they
            hold.
        score: a challenge, whose score is computed against HR.
        region: a mask of what is compared with a stack that was left out.
        cases: a CSV with a line for each person: the columns person, results, and any of these options.
        calibrate: overlay of weights, WEIGHTS.json, that gets the interval for --uncertainty. Give --cases with the
            columns person, results, scan and hr. Nothing else is judged.
        report: whether to write a page, judge.html.
        overwrite: whether to write into a folder that is not empty.

    Raises:
        FileExistsError: the folder is not empty.
        FileNotFoundError, ValueError: a file is missing, cannot be read, or does not belong to the others.
        RunsFailedError: with --cases, when persons failed; the others are done.
    """
    from ..errors import RunsFailedError, get_message
    from ..evidence.inputs import read_person, read_table, resolve_paths
    from ..evidence.output import JudgementWriter
    from ..io.files import check_writable
    from ..runtime.progress import begin_part, show_progress

    given: dict[str, Any] = {
        "left_out": left_out,
        "repeated": repeated,
        "scan": scan,
        "hr": hr,
        "anatomy": anatomy or None,
        "labels": labels,
        "lesions": lesions,
        "interval": interval,
        "score": score,
        "region": region,
    }
    output = Path(output_dir)
    if calibrate is None and output.exists() and any(output.iterdir()) and not overwrite:
        raise FileExistsError(
            f"judge: --output_dir {output_dir} is not empty; name another folder, or write into it by --overwrite true."
        )
    if cases is None:
        persons: list[dict[str, Any]] = [{**given, "person": None, "results": list(results)}]
    else:
        if results:
            raise ValueError("judge: name results on the command line or in --cases, not both.")
        folder = Path(cases).parent
        persons = [given | resolve_paths(row, folder) for row in read_table(cases, list(given))]
    if calibrate is not None:
        from ..evidence.interval import calibrate_weights

        with show_progress("calibrating"):
            people = (read_person(each["results"], each, each["person"]) for each in persons)
            found = calibrate_weights(people, calibrate)
        print(found)
        return
    check_writable(output)
    writer, failures = JudgementWriter(output), []
    with show_progress("judging"):
        for number, options in enumerate(persons):
            with begin_part(number, len(persons)):
                try:
                    writer.add(read_person(options["results"], options, options["person"]))
                except (OSError, ValueError, ImportError) as error:
                    if cases is None:
                        raise
                    failures.append(f"{options['person']}: {get_message(error)}")
    writer.write(report)
    if failures:
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(persons)} persons failed:", *failures]))
