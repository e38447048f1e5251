"""``python -m common ablate``: trains and evaluates the rows of a table, once or with several seeds, and writes it."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..cli_help import called
from ..data.lists.datalist import check_misaligned
from ..data.lists.datalist import folder as check_folder
from ..errors import RunsFailedError
from ..io.files import check_writable
from ..override_checks import check
from ..tables.execution import TRAINING_SECONDS, execute_all
from ..tables.merged import check_against, check_same, described, forget, merged, write_rows
from ..tables.rows import in_size, over_folds, rows_of
from ..tables.runs import runs_of, words
from ..values import check_whole, is_true


def ablate(
    table: str,
    dataset_dir: str,
    output_dir: str,
    bundle: str | None = None,
    folds: int = 1,
    seeds: int = 1,
    jobs: int = 1,
    size: str | None = None,
    against: str | None = None,
    row: int | None = None,
    trained: str | None = None,
    resume: bool | str = False,
    overwrite: bool | str = False,
    **override,
) -> None:
    """Train and evaluate every row of a table on one datalist, and print and write the table, mean +- sd.

    A file of tables is ``{"<table>": [<row>, ...], ...}``, and a row ``{"name": "no guide", "overlays":
    ["train_supervised"], "override": {"guided": false}, "pool": [{"case": 0}, {"case": 1}]}``. Only the name must be
    there. ``overlays`` are configs of the bundle laid over train.json. ``override`` sets keys of the configs. Each
    entry of ``pool`` sets further keys for a run of its own, and the runs' test cases are pooled in the one row: for
    example one training for each test image. Values are read as on the command line of ``python -m monai.bundle run``;
    null is None.

    A row with ``weights``, the name of an earlier row, is not trained: it is that row, with what that one has trained,
    and this row's overlays and overrides laid over those. ``"agreement": true`` makes results agree with their scans
    (``common.inferers.ConsistentInferer``): ``{"name": "X, with agreement", "weights": "X", "agreement": true}``.
    Where ``weights`` is null, the network is evaluated as it starts. A row whose ``start`` is the name of such a row is
    marked *not trained* where their mean PSNR is within 0.05 dB of each other, and *below start* where it is lower; so
    is each row that takes its weights. ``knows`` says what the row's training was told, for the column ``knew``;
    ``iterations`` is how long it was.

    Rows may be of several bundles: ``{"name": "SRCNN", "bundle": "bundles/srcnn"}``, with overlays of that bundle.
    Methods whose degradations differ then have different LR inputs, and are not compared on equal terms: the table has
    a cubic row for each input, above the methods that had it. ``override`` or a key that is set for all rows makes
    inputs equal, for example --scale "[2, 2, 1]". A key that only some methods have, such as --groups 2, is set for
    these, and it is said which rows go without.

    A run is ``python -m monai.bundle run`` of train.json and its overlays, then with evaluate.json and the overlay of
    the weights, models/model.json, in the current working directory. Keys such as ``evaluate#evaluator#lpips`` are for
    the evaluations. It writes to ``output_dir/<row>``, or ``output_dir/<row>/<number>`` where it is one of a pool:
    what the bundle writes, models/ and log.txt. The table is in ``output_dir``: table.csv, table.json, boxplots.png,
    and for each test case ``<case>.png``, with a column for each method. A run that fails does not stop the others; its
    row is left out of the table.

    With ``--seeds 3`` each run is made with the seeds 0, 1 and 2 (key ``seed``), in ``output_dir/<row>/seed_<seed>``,
    all rows with the one before all with the next.
    The mean of a method is then that over its cases, and +- is the standard deviation of this mean over the seeds, not
    the spread of the cases. Runs are pooled, as folds are, within a seed. table.csv and table.json have each case of
    each seed, and the pictures show seed 0. A row whose run fails with one seed is left out.

    With ``--trained DIR``, the output_dir of an ablate of the same table, nothing is trained: what that one has trained
    is evaluated, for example on other data or as another scanner degrades it.

    With ``--jobs 4`` four runs are made side by side, each with a quarter of the CPU's threads, and what one needs of
    memory four times. A row with ``weights`` waits for the row that it takes them from. Ctrl-C stops all; --resume True
    goes on.

    Args:
        table: a table's name in the bundle's configs/tables.json, or a .json file that holds one table.
        dataset_dir: folder of the datalist.
        output_dir: folder of the table and the runs.
        bundle: folder of the bundle of rows that name none, for example bundles/guided_rdn.
        folds: of a cross-validation: with more than 1, the bundle's cross_validation.json is laid over train.json, and
            each row is run on each fold (its key ``fold``) and its test cases pooled.
        seeds: how many seeds each row is run with; with 1 the key ``seed`` is left as the configs have it.
        jobs: how many runs are made side by side.
        size: an overlay that the bundle of each row has, laid over the row's own: with ``tiny`` each run takes 20 to
            70 s on a core, to see that all is there and that the data fit. What an overlay ``x`` of a row needs for it
            is in ``x_tiny.json``, where that is there.
        against: a row, or cubic, with which each other row is compared by a paired t-test over the test cases, of
            several seeds over their means; p is corrected over the rows by Holm's method.
        row: the number of one row, from 1, to run it alone; ``merge`` makes the table when all are done, wherever they
            ran. All rows' commands are the same but for it. A row with ``weights`` comes after the row that it takes
            them from.
        trained: folder of the table whose runs' weights are evaluated; None trains.
        resume: whether to skip runs whose table.json is there and to continue trainings that were interrupted. The
            rows and the datalist must be what they were: a row that has changed needs another name, or its folder
            removed. A run that still goes on, as its ablate was killed, fails.
        overwrite: whether the runs may take the place of those that ``output_dir`` holds.
        override: keys of the configs to set in all rows, for example --max_epochs 10; none that a row itself sets.

    Raises:
        FileNotFoundError: when the folder of the datalist, a bundle, the table, an overlay, another row's weights or
            all that ``trained`` is to hold are not there.
        FileExistsError: when a row's folder holds a run, and neither ``resume`` nor ``overwrite`` is true.
        ValueError: before anything runs, when ``trained`` is ``output_dir``, ``row`` or ``against`` is no row, the
            folder's runs were made by another command, a row is wrong, sets a key that is set for all rows, or lacks a
            key in its configs that it sets; when all rows lack one that the command line sets; or when ``seed`` is set
            beside more than one of ``seeds``.
        RunsFailedError: at the end, when runs failed; the message lists them with the last error of each.
        KeyboardInterrupt: when it was interrupted, after the runs have ended.
    """
    resume, overwrite = is_true(resume, "resume"), is_true(overwrite, "overwrite")
    if resume and overwrite:
        raise ValueError("resume and overwrite are both true; a table is continued or begun anew, so give one of them.")
    check_whole(folds=folds, seeds=seeds, jobs=jobs)
    check_folder(dataset_dir)
    rows = rows_of(bundle, table)
    check_against(against, [row["name"] for row in rows])
    if trained is not None and Path(trained).resolve() == Path(output_dir).resolve():
        raise ValueError(f"--trained is --output_dir, {output_dir}; name another folder for what is evaluated now.")
    if row is not None:
        check_whole(row=row)
        if row > len(rows):
            listing = ", ".join(f"{number} {known['name']}" for number, known in enumerate(rows, start=1))
            raise ValueError(f"--row {row}: the table has the rows {listing}.")
        if against is not None:
            raise ValueError("--against is for the whole table: give it to merge, when the rows are done.")
    if folds > 1:
        rows = [over_folds(row, folds) for row in rows]
    if size is not None:
        rows = [in_size(row, size) for row in rows]
    everywhere = {"dataset_dir": str(Path(dataset_dir)), **override}
    runs = runs_of(rows, Path(output_dir), everywhere, seeds, None if trained is None else Path(trained))
    for run in runs:
        # Their own check of their command line would come only when it is their turn.
        try:
            for evaluate in (True, False) if run.trains else (True,):
                check(["bundle/__main__.py", "run", *words(run, resume, evaluate)])
            if is_true(run.override.get("data#misaligned", False), "misaligned"):
                check_misaligned(dataset_dir, True)
        except ValueError as error:
            raise ValueError(f"{run.title}: {error}") from None
    if trained is not None and not any(run.awaits and (run.awaits / "table.json").is_file() for run in runs):
        raise FileNotFoundError(
            f"--trained {trained}: none of the rows has been trained there: no folder of it has a table.json; name "
            "the output_dir of an ablate of this table with as many --seeds and --folds."
        )
    check_writable(output_dir)
    described_rows, all_runs = described(output_dir, runs), runs
    if row is not None:
        runs = [run for run in runs if run.row == rows[row - 1]["name"]]
        for run in runs:
            if run.awaits and not (run.awaits / "table.json").is_file():
                raise FileNotFoundError(
                    f"--row {row}: {run.awaits} has no table.json; run the row whose weights this one takes first."
                )
    if resume or row is not None:
        check_same(output_dir, described_rows, all_rows=row is not None)
    own = [run for run in runs if run.trains]
    for run in runs:
        held = [run.folder / "table.json", *run.folder.glob("history*.jsonl"), *run.folder.glob("models/*.pt")]
        if names := [path.name for path in held if path.is_file() and not resume and not overwrite]:
            raise FileExistsError(
                f"{run.folder} holds an earlier run ({', '.join(names)}); --resume True keeps it and goes on, "
                "--overwrite True replaces it."
            )
    write_rows(output_dir, described_rows)
    if not resume:
        # Or a later --resume would take the tables and weights of an earlier ablation for this one's.
        made = {run.folder for run in runs}
        for run in all_runs:
            if made & {run.folder, run.trained}:
                (run.folder / "table.json").unlink(missing_ok=True)
        forget(output_dir)
        for run in own:
            shutil.rmtree(run.folder / "models", ignore_errors=True)
            for past in (*run.folder.glob("history*.jsonl"), run.folder / TRAINING_SECONDS):
                past.unlink(missing_ok=True)
    try:
        failures = execute_all(runs, jobs, resume)
    except KeyboardInterrupt:
        print("the same command with --resume True goes on with what is left", flush=True)
        raise
    if row is None:
        merged(output_dir, against)
    elif not failures:
        print(f"row {row} is done; {called('merge')} --output_dir {output_dir} makes the table")
    if failures:
        listing = "\n  ".join(f"{run.title}: {failure}" for run, failure in failures)
        raise RunsFailedError(
            f"{len(failures)} of {len(runs)} runs failed, the others are done:\n  {listing}\nThe log.txt of each "
            "that began says more; --resume True runs only what is missing."
        )
