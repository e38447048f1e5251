"""``python -m common judge``: what a result is worth, on data of one's own, also without HR."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
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
    lpips: str | None = None,
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
        hr: the truth; on another grid than the results it is resampled. Adds scores, and a test for invented detail.
        anatomy: whether to segment the brain and its tissues in all volumes, and to compare their sizes.
        labels: your own segmentation in its place: label maps, "maps/{name}_labels.nii.gz", where {name} is that of a
            volume's file and {folder} that of its folder; or a command, "mytool {input} {output}".
        lesions: a mask of lesions: their contrast and volume in scan, interpolation and result.
        interval: half widths of the error bar of the result, as --uncertainty writes them; with --hr, how often they
            hold.
        lpips: AlexNet's weights (alexnet-owt-7be5be79.pth), for LPIPS against HR; needs the package lpips.
        region: a mask of what is compared with a stack that was left out, or counts in scores that are masked.
        cases: a list of a spreadsheet, CSV or TSV, with a line for each person: the columns person, results, and any
            of these options. All of it is checked before anything is computed.
        calibrate: overlay of weights, WEIGHTS.json, that gets the interval for --uncertainty. Give --cases with the
            columns person, results, scan and hr. Nothing else is judged.
        report: whether to write a page, judge.html.
        overwrite: whether to write into a folder that is not empty.
    """
    given: dict[str, Any] = {"left_out": left_out, "repeated": repeated, "scan": scan, "hr": hr, "anatomy": anatomy}
    given |= {"labels": labels, "lesions": lesions, "interval": interval, "lpips": lpips, "region": region}
    from ...io.writing import check_writable
    from ...lab.judge.inputs import read_cases, read_person
    from ...lab.judge.interval import Calibration
    from ...lab.judge.output import JudgementWriter
    from ...lab.judge.segmentation import check_segmentation
    from ...runtime.errors import RunsFailedError, get_message
    from ...runtime.progress import fill_bar, make_bar

    output = Path(output_dir)
    if calibrate is None and not overwrite:
        _check_empty(output)
    check_writable(output)
    if cases is None:
        persons: list[dict[str, Any]] = [{**given, "person": None, "results": list(results)}]
    else:
        if results:
            raise ValueError("judge: name results on the command line or in --cases, not both.")
        persons = read_cases(cases, given, calibrate is not None)
    if any(each["anatomy"] and each["labels"] is None for each in persons):
        check_segmentation()
    writer: Calibration | JudgementWriter = JudgementWriter(output, report)
    if calibrate is not None:
        if cases is None:
            raise ValueError("judge: --calibrate takes several people: give --cases with person, results, scan and hr.")
        writer = Calibration(calibrate)
    failures = []
    with _hold_files(output, overwrite) if calibrate is None else nullcontext():
        with make_bar(what="judging", total=len(persons), unit="person", unit_scale=True) as bar:
            for number, options in enumerate(persons):
                try:
                    with fill_bar(bar, number):
                        writer.add_person(*read_person(options["results"], options, options["person"]))
                except Exception as error:  # whatever it is, the others' results are kept
                    if cases is None:
                        raise
                    failures.append(f"{options['person']}: {get_message(error)}")
        if len(failures) < len(persons):
            writer.write()
    if failures:
        raise RunsFailedError("\n  ".join([f"{len(failures)} of {len(persons)} persons failed:", *failures]))


@contextmanager
def _hold_files(output: Path, overwrite: bool) -> Iterator[None]:
    """Hold back what the block writes, and move it to a folder that is still empty, or may be overwritten."""
    from ..files import HeldFiles, lock_path

    files = HeldFiles()
    with files.hold_back():
        yield
        with lock_path(output / "judge"):
            if not overwrite:
                _check_empty(output)
            files.move()


def _check_empty(output: Path) -> None:
    """Refuse a folder with files, other than hidden ones."""
    if output.exists() and any(path.name[0] != "." for path in output.iterdir()):
        raise FileExistsError(
            f"judge: --output_dir {output} is not empty; name another folder, or write into it by --overwrite True."
        )
