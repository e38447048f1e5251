"""``python -m common ablate``: train and evaluate the rows of a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ...data.lists.datalist import check_misaligned
from ...data.lists.datalist import find_data_folder as check_folder
from ...io.writing import check_writable, write_atomically
from ...lab.tables.execution import TRAINING_SECONDS, execute_runs
from ...lab.tables.merged import ROWS, check_same_commands, describe_runs, merge_finished_rows, remove_merged
from ...lab.tables.rows import apply_size_overlay, expand_folds, read_table_rows
from ...lab.tables.runs import list_runs, make_command_words
from ...runtime.errors import RunsFailedError
from ...runtime.unknown_keys import refuse_unknown_keys
from ...runtime.values import check_whole_numbers
from ...start import check_device, read_arguments


def ablate(
    table: str,
    dataset_dir: str,
    output_dir: str,
    bundle: str | None = None,
    folds: int = 1,
    size: str | None = None,
    trained: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | None = None,
    **override,
) -> None:
    """Train and evaluate every row of a table on one datalist. Write and print the table as mean +- sd.

    A file of tables is ``{"<table>": [<row>, ...], ...}``. A row is ``{"name": "no guide", "overlays":
    ["train_supervised"], "override": {"guided": false}, "pool": [{"case": 0}, {"case": 1}]}``. Only the name is
    required. ``overlays`` are configs of the bundle that are laid over train.json. ``override`` sets keys of the
    configs. Each entry of ``pool`` sets further keys for a run of its own, for example one training for each test
    image. The test cases of these runs are pooled in the row. Values are read as on the command line of
    ``python -m monai.bundle run``; null is None.

    If ``weights`` is the name of an earlier row, the row is not trained. It uses the weights, overlays and overrides of
    that row, with its own laid over them. ``"data_consistency": true`` makes results agree with their scans
    (``common.inferers.ConsistentInferer``):
    ``{"name": "X, with data consistency", "weights": "X", "data_consistency": true}``. If ``weights`` is null, the
    network is evaluated without training. ``start`` is the name of such a row. A row is marked *not trained* if its
    mean PSNR is within 0.05 dB of its start's, and *below start* if it is lower. Rows that take its weights are marked
    in the same way. ``knows`` says what the training was given, for the column ``knew``. ``published`` is the gain over
    cubic that the method's paper states, for a column of that name; --scale leaves it out. Further columns have the
    ``person`` of a case, and the ``seed``, ``iterations``, ``seconds``, ``machine`` and ``precision`` of the training.
    Seconds of a resumed training are summed, and its machine is the one that wrote the weights. Seconds of a method
    that learns from the scan are those of the case.

    Rows may be of several bundles: ``{"name": "SRCNN", "bundle": "bundles/srcnn"}``, with overlays of that bundle.
    Methods with different degradations have different LR inputs, and are not compared on equal terms. The table then
    has a cubic row for each input, above the methods with this input. An ``override`` or a key for all rows makes
    inputs equal, for example --scale "[2, 2, 1]". If only some methods have a key, such as --groups 2, it is set for
    these, and the other rows are listed.

    A run is ``python -m monai.bundle run`` in the current working directory: first with train.json and its overlays,
    then with evaluate.json and the overlay of the weights, models/model.json. Keys such as
    ``evaluate#report#metrics`` apply to the evaluation only. The run writes what the bundle writes, models/ and
    log.txt to ``output_dir/<row>``, or to ``output_dir/<row>/<number>`` if it is pooled. ``output_dir`` gets the table:
    table.csv, table.json, boxplots.png, curves.png with the PSNR of validations, and for each test case ``<case>.png``
    with a column for each method. A failed run does not stop the others; its row is left out of the table.

    With ``--trained DIR``, the output_dir of an earlier ablate of this table, nothing is trained. The weights of that
    table are evaluated, for example on other data or with another degradation.

    Ctrl-C and SIGTERM let the present training save its state. --resume True continues it.

    Args:
        table: a table's name in the bundle's configs/tables.json, or a .json file with one table.
        dataset_dir: folder of the datalist.
        output_dir: folder of the table and the runs.
        bundle: folder of the bundle for rows that name none, for example bundles/guided_rdn.
        folds: number of folds of a cross-validation. With more than 1, each row is run on each fold (its key ``fold``),
            and its test cases are pooled.
        size: an overlay of each row's bundle that is laid over the row's own overlays, such as ``small``.
        trained: folder of the table whose weights are evaluated; None trains.
        resume: whether to skip runs with a table.json and to continue interrupted trainings. The rows and the datalist
            must not have changed. A changed row needs another name, or its folder removed. Do not start
            two commands in one folder at the same time.
        overwrite: whether to replace earlier runs in ``output_dir``.
        device: where the networks run, for example cpu; default the first GPU, if there is one.
        override: keys of the configs to set in all rows, for example --max_epochs 10; no key that a row itself sets.
    """
    if resume and overwrite:
        raise ValueError("resume and overwrite are both true; a table is continued or begun anew, so give one of them.")
    check_whole_numbers(folds=folds)
    if device is not None:
        check_device(device)
        override["device"] = device
    check_folder(dataset_dir)
    rows = read_table_rows(bundle, table)
    if trained is not None and Path(trained).resolve() == Path(output_dir).resolve():
        raise ValueError(f"--trained is the same as --output_dir, {output_dir}; use another --output_dir.")
    if folds > 1:
        rows = [expand_folds(row, folds) for row in rows]
    if size is not None:
        rows = [apply_size_overlay(row, size) for row in rows]
    everywhere = {"dataset_dir": str(Path(dataset_dir)), **override}
    runs = list_runs(rows, Path(output_dir), everywhere, None if trained is None else Path(trained))
    for run in runs:
        # Each run checks its own command line only when it starts.
        try:
            for evaluate in (True, False) if run.is_training else (True,):
                refuse_unknown_keys(read_arguments(make_command_words(run, resume, evaluate)))
            if run.override.get("misaligned", False):
                check_misaligned(dataset_dir, True)
        except ValueError as error:
            raise ValueError(f"{run.title}: {error}") from None
    if trained is not None and not any(
        run.awaited_folder and (run.awaited_folder / "table.json").is_file() for run in runs
    ):
        raise FileNotFoundError(
            f"--trained {trained}: no row was trained there, as no folder has a table.json; name the output_dir of an "
            "ablate of this table with the same --folds."
        )
    check_writable(output_dir)
    described_rows = describe_runs(output_dir, runs)
    if resume:
        check_same_commands(output_dir, described_rows)
    for run in runs:
        held = [run.folder / "table.json", *run.folder.glob("history*.jsonl"), *run.folder.glob("models/*.pt")]
        if files := [path.name for path in held if path.is_file() and not resume and not overwrite]:
            raise FileExistsError(
                f"{run.folder} holds an earlier run ({', '.join(files)}); --resume True keeps it and goes on, "
                "--overwrite True replaces it."
            )
    with write_atomically(Path(output_dir) / ROWS) as path:
        path.write_text(json.dumps(described_rows, indent=2) + "\n")
    if not resume:
        # Otherwise a later --resume would use the tables and weights of an earlier ablation.
        remove_merged(output_dir)
        for run in runs:
            (run.folder / "table.json").unlink(missing_ok=True)
            if run.is_training:
                shutil.rmtree(run.folder / "models", ignore_errors=True)
                for past in (*run.folder.glob("history*.jsonl"), run.folder / TRAINING_SECONDS):
                    past.unlink(missing_ok=True)
    try:
        failures = execute_runs(runs, resume)
    except KeyboardInterrupt:
        print("the same command with --resume True goes on with what is left", flush=True)
        raise
    merge_finished_rows(output_dir, described_rows)
    if failures:
        listing = "\n  ".join(f"{run.title}: {failure}" for run, failure in failures)
        raise RunsFailedError(
            f"{len(failures)} of {len(runs)} runs failed, the others are done:\n  {listing}\nSee the log.txt of each "
            "failed run; --resume True runs only what is missing."
        )
