"""Evaluation and inference case by case."""

from __future__ import annotations

import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean, linear_regression
from typing import Any

import torch.distributed as dist
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedEvaluator
from tqdm import tqdm

from ..data.loaders.cases import CaseFailure, loading_ahead
from ..io.images import open_image
from ..io.naming import by_name, case_name, failure, few_words, result_name, root_cause, without_name
from ..runtime import progress
from ..runtime.distributed import gathered, rank
from ..runtime.memory import keep_freed_memory

_WARNINGS = 10  # the most different warnings that are listed in full after the cases


class CasesFailedError(RuntimeError):
    """Some cases of a batch failed; the others are done.

    Args:
        failures: the failed cases; the message lists them with the reasons.
        total: number of all cases.

    Attributes:
        failures: as given.
    """

    def __init__(self, failures: Sequence[CaseFailure], total: int) -> None:
        listing = "\n  ".join(failure(case.case, case.reason) for case in failures)
        super().__init__(f"{len(failures)} of {total} cases failed, the others are done:\n  {listing}")
        self.failures = list(failures)


@dataclass
class Case:
    """State and result of a case.

    Attributes:
        entry: of the data list.
        started: when its turn began, by ``time.perf_counter``; it may have been loaded ahead.
        voxels: number of voxels of the scan.
        inferred: end of the network's work, or None.
        ended: end of its handlers' work.
        seconds: duration of its turn, with loading and postprocessing.
        warnings: texts of the warnings about it, each once; the "warnings" of its entry come first.
        result: path of the file from ``SaveVolumed``.
        error: reason of the failure, or None.
    """

    entry: Mapping[str, Any]
    started: float
    voxels: float = 1.0
    inferred: float | Any = None
    ended: float = 0.0
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    result: str | None = None
    error: str | None = None

    def line(self) -> str:
        """The case in one line."""
        name, took = result_name(self.entry), f"{self.seconds:.1f} s"
        if self.error is not None:
            return f"{name}: failed after {took}: {few_words(self.error, self.entry)}"
        said = [f"warning: {few_words(text, self.entry)}" for text in self.warnings]
        return "; ".join([f"{name} -> {self.result}, {took}" if self.result else f"{name}, {took}", *said])


class CaseEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that continues after failed cases, and lists them in an error at the end.

    After a failed case, ``engine.state.output`` is an empty list. There is one :class:`~common.runtime.progress.Bar`
    for all cases. One line per case shows its result, its seconds, and short forms of its warnings. These are all
    ``UserWarning`` in the loading of the case and until the end of its handlers. They are listed in full at the end.
    Handlers find the case as ``engine.case``, and finished cases in ``engine.cases``. Args are those of
    ``SupervisedEvaluator``; the loader is a :class:`common.data.CaseLoader`.

    Attributes:
        after: expected seconds per voxel of a scan for the steps after the network, until a case is measured.

    Raises:
        CasesFailedError: at the end of the run, if cases failed; the message lists them with the reasons.
    """

    after = 0.0
    state: Any
    data_loader: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ignite logs epochs, which cases do not have, and errors, which are raised anyway.
        self.logger.setLevel(logging.CRITICAL)
        self.case: Case | Any = None
        self.cases: list[Case] = []
        self.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._inferred)
        # After the given handlers, because they can warn too.
        self.add_event_handler(Events.ITERATION_COMPLETED, self._finish)

    @property
    def failures(self) -> list[CaseFailure]:
        """The cases of the last run that failed."""
        return [CaseFailure(case_name(case.entry), case.error) for case in self.cases if case.error is not None]

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Process every case, then raise if any failed."""
        self.case, self.cases = None, []
        total = len(self.data_loader)
        # One of many processes may have no cases.
        if total:
            self._run_cases(total, global_epoch)
        else:
            print("no scans to do", flush=True)
        every = gathered([case_name(entry) for entry in self.data_loader.dataset.data])
        if failures := gathered(self.failures):
            if rank()[0] > 0 and dist.is_initialized():
                sys.exit(1)  # the first process reports the failures
            raise CasesFailedError(failures, len(every))

    def _run_cases(self, total: int, global_epoch: int) -> None:
        if self.state.device.type == "cpu":
            keep_freed_memory()
        started = time.perf_counter()
        entries = self.data_loader.dataset.data
        self.voxels = _voxels(entries)
        # All at once, because there may be warnings about a case that is loaded ahead.
        self.every = [
            Case(entry, started, voxels, warnings=[*entry.get("warnings", ())])
            for entry, voxels in zip(entries, self.voxels, strict=True)
        ]
        with self._recording(), progress.Bar() as self.bar, progress.listening(self._advance):
            super().run(global_epoch)
        print("\n".join(self._summary(time.perf_counter() - started)), flush=True)

    def _begin(self) -> None:
        entries = self.data_loader.dataset.data
        if len(self.cases) == len(entries):
            return  # Ignite calls once more than there are cases
        number = len(self.cases)
        self.case, self.loading = self.every[number], True
        self.case.started = time.perf_counter()
        several = len(entries) > 1
        name = result_name(self.case.entry)
        self.bar.what = f"{number + 1}/{len(entries)} " * several + name + ", all scans" * several
        self._advance()

    def _inferred(self) -> None:
        self.case.inferred = time.perf_counter()
        self._advance()

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        self.loading = False
        try:
            if isinstance(batchdata, CaseFailure):
                self.case.error = by_name(batchdata.reason, self.case.entry)
                return []
            try:
                with progress.step():
                    output = super()._iteration(engine, batchdata)
                self.case.result = output[0].get("saved_to") if isinstance(output, list) else None
                return output
            except Exception as error:
                self.case.error = by_name(root_cause(error), self.case.entry)
                return []
        finally:
            self.case.seconds = time.perf_counter() - self.case.started

    def _advance(self, left: float = math.nan) -> None:
        """Show the time left: measured for the present step, and by other cases for later steps."""
        case, now = self.case, time.perf_counter()
        done = [other for other in self.cases if other.error is None and other.voxels]
        if case.inferred is not None:
            left = max(self._after(done) - (now - case.inferred), 0 if math.isnan(left) else left)
        elif not self.loading:
            left += self._after(done)
        elif done:
            # An unreadable scan fails quickly.
            left = max(_expected(done)(case.voxels) - (now - case.started), 0) if case.voxels else 0.0
        else:
            left = math.nan
        expected = _expected([*done, replace(case, ended=now + left)] if case.voxels or not done else done)
        self.bar.tell(left + sum(expected(voxels) for voxels in self.voxels[len(self.cases) + 1 :] if voxels))

    def _after(self, done: Sequence[Case]) -> float:
        """Expected seconds of the present case after the network."""
        if not done:
            return self.after * self.case.voxels
        return sum(case.ended - case.inferred for case in done) / sum(case.voxels for case in done) * self.case.voxels

    def _finish(self) -> None:
        case, self.case = self.case, None
        case.ended = time.perf_counter()
        self.cases.append(case)
        count = f"{len(self.cases)}/{len(self.data_loader)} " if len(self.data_loader) > 1 else ""
        tqdm.write(count + case.line())
        sys.stdout.flush()
        if len(self.cases) == len(self.data_loader):
            self.bar.close()  # handlers may print at the end

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record the warnings about each case; other warnings, such as those about code, are shown as usual."""
        with warnings.catch_warnings():
            # By default Python shows a warning once. Appended, so filters of the user take precedence.
            warnings.simplefilter("always", UserWarning, append=True)
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
                ahead = loading_ahead.get()
                case = self.case if ahead is None else self.every[ahead]
                if case is None or not issubclass(category, UserWarning):
                    others(message, category, *args, **kwargs)
                elif (text := by_name(str(message), case.entry)) not in case.warnings:
                    case.warnings.append(text)

            warnings.showwarning = show
            yield

    def _summary(self, seconds: float) -> list[str]:
        """Final lines: the number of finished cases, and all warnings in full with the names of their cases."""
        failed = len(self.failures)
        warned = [case for case in self.cases if case.warnings]
        counts = [f"{len(self.cases) - failed} of {len(self.cases)} done in {seconds:.1f} s"]
        counts += [f"{failed} failed"] * (failed > 0) + [f"{len(warned)} with warnings"] * bool(warned)
        about: dict[str, list[str]] = {}
        for case in warned:
            name = result_name(case.entry)
            for text in case.warnings:
                about.setdefault(without_name(text, case.entry), []).append(name)
        lines = [", ".join(counts)]
        for text, names in list(about.items())[:_WARNINGS]:
            several = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"warning: {', '.join(names[:3])}{several}: {text}")
        if len(about) > _WARNINGS:
            lines.append(f"and {len(about) - _WARNINGS} other warnings")
        return lines


def _expected(cases: Sequence[Case]) -> Callable[[float], float]:
    """Expected seconds as a function of voxels, from other cases: a constant part and a part per voxel."""
    voxels, seconds = [case.voxels for case in cases], [case.ended - case.started for case in cases]
    size, mean = fmean(voxels), fmean(seconds)
    in_proportion = mean / max(size, 1)
    # For scans of similar sizes the slope is random, so it is limited.
    slope = linear_regression(voxels, seconds).slope if len(set(voxels)) > 1 else in_proportion
    slope = min(max(slope, 0.0), in_proportion)
    return lambda voxels: mean + slope * (voxels - size)


def _voxels(entries: Sequence[Mapping[str, Any]]) -> list[float]:
    """Voxels of each entry's scan; 0 if it cannot be read; 1 for all entries if none can be read."""
    found = []
    for entry in entries:
        path: Any = next((entry[key] for key in ("image", "lr", "hr") if key in entry), None)
        try:
            found.append(0.0 if "problem" in entry else float(math.prod(open_image(path).shape[:3])))
        except Exception:  # reported when the case is loaded
            found.append(0.0)
    return found if any(found) else [1.0] * len(found)
