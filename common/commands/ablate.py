"""``python -m common ablate``: trains and evaluates the rows of a table, once or with several seeds, and writes it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from monai.bundle import ConfigParser

from ..command_line import check, check_whole, is_true
from ..data.lists.datalist import check_misaligned
from ..data.lists.datalist import folder as folder_of
from ..errors import RunsFailedError
from ..files import check_writable
from ..handlers.forecast import duration
from ..merged import merged, write_rows
from ..reports import RESERVED
from ..side_by_side import Programs
from ..workflow import check_new_run

# Of a row.
_KEYS = {"name": str, "bundle": str, "overlays": list, "override": dict, "pool": list, "weights": str}
_JSON = {str: "string", list: "array", dict: "object"}


@dataclass
class Run:
    """One training and its evaluation: a row's, with one of its seeds, or one of those that a row pools."""

    row: str
    seed: int | None
    title: str
    folder: Path
    configs: list[str]
    override: Mapping[str, object]
    trained: Path  # the folder of the run whose weights are evaluated: its own, or another row's

    @property
    def trains(self) -> bool:
        return self.trained == self.folder


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
    resume: bool | str = False,
    overwrite: bool | str = False,
    **override,
) -> None:
    """Train and evaluate every row of a table on one datalist, and print and write the table, mean +- sd.

    A file of tables is ``{"<table>": [<row>, ...], ...}``, and a row ``{"name": "no guide", "overlays":
    ["train_supervised"], "override": {"guided": false}, "pool": [{"case": 0}, {"case": 1}]}``. Only the name must be
    there. ``overlays`` are configs of the bundle laid over train.json. ``override`` sets keys of the configs. Each
    entry of ``pool`` sets further keys for a run of its own, and the runs' test cases are pooled in the one row: for
    example one training for each test image. A row with ``weights``, the name of an earlier row, is not trained: what
    that row has trained is evaluated with this row's overlays and overrides; the two have the same bundle and pool.
    Values are read as on the command line of ``python -m monai.bundle run``; null is None.

    Rows may be of several bundles: ``{"name": "SRCNN", "bundle": "bundles/srcnn"}``, with overlays of that bundle.
    Methods whose degradations differ then have different LR inputs, and are not compared on equal terms: the table has
    a cubic row for each input, above the methods that had it. ``override`` or a key that is set for all rows makes
    inputs equal, for example --scale "[2, 2, 1]". A key that only some methods have, such as --groups 2, is set for
    these, and it is said which rows go without.

    A run is ``python -m monai.bundle run`` of train.json and its overlays, then with evaluate.json, in the current
    working directory. It writes to ``output_dir/<row>``, or ``output_dir/<row>/<number>`` where it is one of a pool:
    what the bundle writes, models/ and log.txt. The table is in ``output_dir``: table.csv, table.json, boxplots.png,
    and for each test case ``<case>.png``, with a column for each method. A run that fails does not stop the others; its
    row is left out of the table.

    With ``--seeds 3`` each run is made with the seeds 0, 1 and 2 (key ``seed``), in ``output_dir/<row>/seed_<seed>``,
    all rows with the one before all with the next.
    The mean of a method is then that over its cases, and +- is the standard deviation of this mean over the seeds, not
    the spread of the cases. Runs are pooled, as folds are, within a seed. table.csv and table.json have each case of
    each seed, and the pictures show seed 0. A row whose run fails with one seed is left out.

    With ``--jobs 4`` four runs are made side by side, each with a quarter of the CPU's threads, and what one needs of
    memory four times. A row with ``weights`` waits for the row that it takes them from. Ctrl-C stops all; --resume true
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
        size: an overlay that the bundle of each row has, laid over the row's own: with ``tiny`` each run takes seconds,
            to see that all is there and that the data fit.
        against: a row, or cubic, with which each other row is compared by a paired t-test over the test cases.
        row: the number of one row, from 1, to run it alone; ``merge`` makes the table when all are done, wherever they
            ran. A row with ``weights`` comes after the row that it takes them from.
        resume: whether to skip runs whose table.json is there and to continue trainings that were interrupted. The
            rows must be what they were: a row that has changed needs another name, or its folder removed.
        overwrite: whether the runs may take the place of those that ``output_dir`` holds.
        override: keys of the configs to set in all rows, for example --max_epochs 10; none that a row itself sets.

    Raises:
        FileNotFoundError: when the folder of the datalist, a bundle, the table, an overlay or another row's weights are
            not there.
        FileExistsError: when a row's folder holds a run, and neither ``resume`` nor ``overwrite`` is true.
        ValueError: before anything runs, when a row is wrong, sets a key that is set for all rows, or lacks a key in
            its configs that it sets; when all rows lack one that the command line sets; or when ``seed`` is set beside
            more than one of ``seeds``.
        RunsFailedError: at the end, when runs failed; the message lists them with the last error of each.
        KeyboardInterrupt: when it was interrupted, after the runs have ended.
    """
    resume, overwrite = is_true(resume, "resume"), is_true(overwrite, "overwrite")
    check_whole(folds=folds, seeds=seeds, jobs=jobs)
    folder_of(dataset_dir)
    rows = _rows(bundle, table)
    if against not in (None, "cubic", *(row["name"] for row in rows)):
        raise ValueError(f"--against {against}: there is no such row, only {'; '.join(row['name'] for row in rows)}.")
    if row is not None and row not in range(1, len(rows) + 1):
        raise ValueError(f"--row {row}: the table has the rows 1 to {len(rows)}.")
    if folds > 1:
        rows = [_over_folds(row, folds) for row in rows]
    if size is not None:
        rows = [{**row, "overlays": [*row["overlays"], _overlay(row, size, f"--size {size}")]} for row in rows]
    runs = _runs(rows, Path(output_dir), {"dataset_dir": str(dataset_dir), **override}, seeds)
    for run in runs:
        # Their own check of their command line would come only when it is their turn.
        try:
            check(["bundle/__main__.py", "run", *_words(run, resume)])
            if is_true(run.override.get("misaligned", False), "misaligned"):
                check_misaligned(dataset_dir, True)
        except ValueError as error:
            raise ValueError(f"{run.title}: {error}") from None
    check_writable(output_dir)
    write_rows(output_dir, [(run.row, run.seed, run.folder) for run in runs])
    if row is not None:
        runs = [run for run in runs if run.row == rows[row - 1]["name"]]
        for run in runs:
            if not run.trains and not (run.trained / "models").is_dir():
                raise FileNotFoundError(
                    f"--row {row}: there is no {run.trained}/models; run the row that makes it first."
                )
    own = [run for run in runs if run.trains]
    for run in own:
        check_new_run(run.folder, run.folder / "models", resume, overwrite, suffixes=["*"])
    if not resume:
        # Or a later --resume would take the tables and weights of an earlier ablation for this one's.
        for run in runs:
            (run.folder / "table.json").unlink(missing_ok=True)
        for run in own:
            shutil.rmtree(run.folder / "models", ignore_errors=True)
            for history in run.folder.glob("history*.jsonl"):
                history.unlink()
    try:
        failures = _execute_all(runs, jobs, resume)
    except KeyboardInterrupt:
        print("the same command with --resume true goes on with what is left", flush=True)
        raise
    if row is None:
        merged(output_dir, against)
    elif not failures:
        print(f"row {row} is done; python -m common merge --output_dir {output_dir} makes the table")
    if failures:
        listing = "\n  ".join(f"{run.title}: {failure}" for run, failure in failures)
        raise RunsFailedError(
            f"{len(failures)} of {len(runs)} runs failed, the others are done:\n  {listing}\nEach folder's log.txt "
            "tells the rest; --resume true runs only what is missing."
        )


def _rows(bundle: str | None, table: str) -> list[dict]:
    """The rows of the table, each with all its keys."""
    if bundle is not None:
        _check_bundle("--bundle", bundle)
    elif not table.endswith(".json"):
        raise ValueError(
            f"--table {table}: without --bundle there are no tables to look for it in; name its bundle with --bundle, "
            "or give a .json file whose rows name theirs."
        )
    path = Path(table) if table.endswith(".json") else Path(bundle) / "configs" / "tables.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file; --table is the name of a table in the bundle's configs/tables.json, or a "
            ".json file that holds one."
        )
    try:
        tables = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from None
    if not isinstance(tables, dict) or not all(isinstance(rows, list) and rows for rows in tables.values()):
        raise ValueError(f'{path}: expected {{"<table>": [<row>, ...], ...}} with at least one row in each table.')
    names = ", ".join(tables)
    if table.endswith(".json"):
        if len(tables) != 1:
            raise ValueError(f"{path}: a file that --table names holds one table, found {names or 'none'}.")
        (table,) = tables
    elif table not in tables:
        raise ValueError(f"{path}: there is no table '{table}', only {names or 'an empty object'}.")
    rows: list[dict] = []
    folders: dict[str, str] = {}
    for number, row in enumerate(tables[table], start=1):
        where = f"{path}, table '{table}', row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, found {row!r}.")
        for key, value in row.items():
            if key not in _KEYS:
                raise ValueError(f"{where}: unknown key '{key}'; a row has {', '.join(_KEYS)}.")
            if not isinstance(value, _KEYS[key]):
                raise ValueError(f"{where}: '{key}' is {value!r}, expected a JSON {_JSON[_KEYS[key]]}.")
        name = row.get("name", "")
        folder = _folder(name)
        if not folder or name in RESERVED:
            raise ValueError(
                f"{where}: the name is '{name}', expected one with a letter or digit, and not {', '.join(RESERVED)}."
            )
        if folder in folders:
            raise ValueError(f"{where}: '{name}' and '{folders[folder]}' have the same folder '{folder}'; rename one.")
        folders[folder] = name
        if "bundle" in row:
            _check_bundle(f"{where} ('{name}'): 'bundle'", row["bundle"])
        elif bundle is None:
            raise ValueError(f"{where} ('{name}'): no 'bundle', and no --bundle for rows without; name one.")
        own = row.get("bundle", bundle)
        for overlay in row.get("overlays", []):
            _overlay({"name": name, "bundle": own}, overlay, where)
        if "pool" in row and not (row["pool"] and all(isinstance(entry, dict) for entry in row["pool"])):
            raise ValueError(f"{where} ('{name}'): 'pool' is {row['pool']!r}, expected objects of keys, at least one.")
        earlier = [other["name"] for other in rows if other["weights"] is None]
        if "weights" in row and row["weights"] not in earlier:
            raise ValueError(
                f"{where} ('{name}'): 'weights' is '{row['weights']}', expected the name of an earlier row that is "
                f"trained: {', '.join(earlier) or 'there is none'}."
            )
        rows.append({"bundle": bundle, "overlays": [], "override": {}, "pool": [], "weights": None, **row})
        if "weights" in row:
            other = next(r for r in rows if r["name"] == row["weights"])
            for key in ("bundle", "pool"):
                if other[key] != rows[-1][key]:
                    raise ValueError(
                        f"{where} ('{name}'): its {key} differs from that of '{row['weights']}', whose weights it "
                        "takes."
                    )
    return rows


def _check_bundle(where: str, bundle: str) -> None:
    """Refuse what is no folder of a bundle."""
    train = Path(bundle) / "configs" / "train.json"
    if not train.is_file():
        raise FileNotFoundError(
            f"{where}: there is no {train}; expected the folder of a bundle, for example bundles/udean."
        )


def _overlay(row: Mapping, overlay: str, where: str) -> str:
    """The overlay, which the row's bundle must have."""
    path = Path(row["bundle"]) / "configs" / f"{overlay}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{where} ('{row['name']}'): the overlay {path} is not there.")
    return overlay


def _over_folds(row: dict, folds: int) -> dict:
    """The row with each of its runs on each fold of a cross-validation."""
    configs = Path(row["bundle"]) / "configs"
    if not (configs / "cross_validation.json").is_file():
        raise FileNotFoundError(f"--folds {folds}, row '{row['name']}': {configs} has no cross_validation.json.")
    pool = [{"folds": folds, "fold": fold, **entry} for fold in range(folds) for entry in row["pool"] or [{}]]
    return {**row, "overlays": ["cross_validation", *row["overlays"]], "pool": pool}


def _folder(name: str) -> str:
    """A row's folder: its name without what folders' names do not have."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._")


def _runs(rows: Sequence[Mapping], output_dir: Path, override: Mapping[str, object], seeds: int) -> list[Run]:
    """The runs of all rows, with what the command line sets."""
    taken = {"config_file", "ckpt_dir"} & override.keys()
    if taken:
        raise ValueError(f"--{taken.pop()}: ablate sets this for each run; leave it out.")
    common = ["dataset_dir", "output_dir", "ckpt_dir", "resume", "config_file", *override]
    _check_seeds(seeds, "the command line", override)
    configs_of, lacking = _configs_of(rows, override)
    runs = []
    for row in rows:
        configs = configs_of[row["name"]]
        own_override = {key: value for key, value in override.items() if row["name"] not in lacking[key]}
        pool = [{**row["override"], **entry} for entry in row["pool"] or [{}]]
        for keys in pool:
            _check_seeds(seeds, f"row '{row['name']}'", keys)
            for key in keys:
                for other in common:
                    if _overlap(key, other):
                        raise ValueError(
                            f"row '{row['name']}' sets {key}, but {other} is set for all rows, which would make rows "
                            "equal; take it out of the row or off the command line."
                        )
        own, source = (output_dir / _folder(name) for name in (row["name"], row["weights"] or row["name"]))
        for seed in range(seeds) if seeds > 1 else [None]:
            for number, keys in enumerate(pool, start=1):
                title, inner = row["name"], Path()
                if seed is not None:
                    title, inner, keys = f"{title}, seed {seed}", inner / f"seed_{seed}", {**keys, "seed": seed}
                if row["pool"]:
                    title, inner = f"{title}, {number} of {len(pool)}", inner / str(number)
                keys = {**keys, **own_override}
                runs.append(Run(row["name"], seed, title, own / inner, configs, keys, source / inner))
    # What has been interrupted has as many seeds of each row.
    return sorted(runs, key=lambda run: run.seed or 0)


def _configs_of(rows: Sequence[Mapping], keys: Collection[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Each row's configs, by its name; and for each key the rows without it, if others have it."""
    configs, having = {}, {key: set() for key in keys}
    for row in rows:
        names = ["train", *row["overlays"]]
        configs[row["name"]] = [str(Path(row["bundle"]) / "configs" / f"{name}.json") for name in names]
        merged = ConfigParser()
        merged.read_config(configs[row["name"]])
        for key in keys:
            if re.split("#|::", key)[0] in merged:
                having[key].add(row["name"])
    lacking = {key: [name for name in configs if name not in having[key]] if having[key] else [] for key in keys}
    for key, names in lacking.items():
        if names:
            print(f"--{key}: not for {'; '.join(names)}, which have no such key")
    return configs, lacking


def _check_seeds(seeds: int, where: str, keys: Collection[str]) -> None:
    """Refuse a seed that is set where several are."""
    if seeds > 1 and any(_overlap(key, "seed") for key in keys):
        raise ValueError(
            f"{where} sets seed, which --seeds {seeds} sets to 0 to {seeds - 1} in turn; take seed out, or leave out "
            "--seeds."
        )


def _overlap(key: str, other: str) -> bool:
    """Whether two keys of a config are the same or one is within the other."""
    parts, others = (k.replace("::", "#").split("#") for k in (key, other))
    return all(a == b for a, b in zip(parts, others, strict=False))


def _words(run: Run, resume: bool, evaluate: bool = False) -> list[str]:
    """What follows ``python -m monai.bundle run`` to train, or to evaluate."""
    configs = run.configs
    keys = {**run.override, "output_dir": run.folder, "ckpt_dir": run.trained / "models"}
    if evaluate:
        configs = [*configs, str(Path(configs[0]).with_name("evaluate.json"))]
    elif resume:
        keys["resume"] = True

    def text(value: object) -> str:
        if value is None:
            return "$None"  # MONAI passes over an override that is None
        return str(value).lower() if isinstance(value, bool) else str(value)

    # With the equals sign, because a value may begin with a dash.
    return [f"--config_file={configs}", *(f"--{key}={text(value)}" for key, value in keys.items())]


def _execute_all(runs: Sequence[Run], jobs: int, resume: bool) -> list[tuple[Run, str]]:
    """Execute all runs, so many at a time, and tell of each. Returns those that failed and why."""
    named = {run.folder: f"run {number} of {len(runs)}: {run.title}" for number, run in enumerate(runs, start=1)}
    titles = {run.folder: run.title for run in runs}
    waiting, failed, pace = [], {}, _Pace(jobs)
    for run in runs:
        if resume and (run.folder / "table.json").is_file():
            print(f"{named[run.folder]}: done before", flush=True)
        else:
            waiting.append(run)
    running: dict[Future[str | None], Run] = {}
    with ThreadPoolExecutor(jobs) as pool, Programs(jobs) as programs:
        while waiting or running:
            awaited = {run.folder for run in (*waiting, *running.values())}
            ready = [run for run in waiting if run.trains or run.trained not in awaited]
            for run in ready[: jobs - len(running)]:
                waiting.remove(run)
                if run.trained in failed:
                    failed[run.folder] = f"{titles[run.trained]}, whose weights it takes, failed."
                    print(f"{named[run.folder]}: failed: {failed[run.folder]}", flush=True)
                    continue
                print(f"{named[run.folder]}, in {run.folder}", flush=True)
                pace.begins(run)
                running[pool.submit(_execute, run, resume, programs)] = run
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                failure = future.result()
                took = duration(pace.ends(run, well=failure is None))
                if failure:
                    failed[run.folder] = failure
                left = pace.left(waiting, running.values())
                said = f"failed after {took}: {failure}" if failure else f"done in {took}"
                print(f"{named[run.folder]}: {said}" + (f" (about {left} left)" if left else ""), flush=True)
    return [(run, failed[run.folder]) for run in runs if run.folder in failed]


class _Pace:
    """How long the runs that are left will take, from those that are done.

    Args:
        jobs: how many run side by side.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.began: dict[Path, float] = {}
        self.took: dict[bool, list[float]] = {True: [], False: []}  # those that train, and those that only evaluate

    def begins(self, run: Run) -> None:
        self.began[run.folder] = time.monotonic()

    def ends(self, run: Run, well: bool) -> float:
        """Returns the seconds that it took; a run that failed says nothing of how long others take."""
        seconds = time.monotonic() - self.began[run.folder]
        if well:
            self.took[run.trains].append(seconds)
        return seconds

    def left(self, waiting: Collection[Run], running: Collection[Run]) -> str | None:
        """A length of time, or None while it cannot be told or nothing is left."""
        trainings, evaluations = self.took[True], self.took[False]
        left = [*waiting, *running]
        if not left or not (trainings or (evaluations and not any(run.trains for run in left))):
            return None
        now, seconds = time.monotonic(), 0.0
        for run in left:
            known = trainings if run.trains else evaluations or trainings
            seconds += max(0.0, sum(known) / len(known) - (now - self.began.get(run.folder, now)))
        return duration(seconds / min(self.jobs, len(left)))


def _execute(run: Run, resume: bool, programs: Programs) -> str | None:
    """Train and evaluate. Returns what went wrong, or None."""
    run.folder.mkdir(parents=True, exist_ok=True)
    path = run.folder / "log.txt"
    with path.open("w") as log:
        for evaluate in (False, True) if run.trains else (True,):
            words = [*_words(run, resume, evaluate), "--traceback=true"]
            status = programs.run([sys.executable, "-m", "monai.bundle", "run", *words], log)
            if status != 0:
                lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
                # What the bundles end with; a process that was killed has had no time for it.
                errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
                said = (errors or lines or ["no output"])[-1]
                return f"{'evaluation' if evaluate else 'training'}, exit status {status}: {said}"
    if not (run.folder / "table.json").is_file():
        return "evaluation: it has written no table.json."
    return None
