"""Evaluation and inference case by case."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from torch import nn
from tqdm import tqdm

from ...data.batches import prepare_lr_hr
from ...io.naming import format_case
from ...runtime.distributed import get_rank
from ...runtime.progress import fill_bar, make_bar
from ..processes import gather_items
from .case import Case
from .loader import CaseLoader, loading_ahead

_WARNINGS = 10  # the most different warnings and notices that are listed in full after the cases


class CasesFailedError(RuntimeError):
    """Some cases of a batch failed; the others are done.

    Args:
        failures: a line for each failed case, with the reason.
        total: number of all cases.
    """

    def __init__(self, failures: Sequence[str], total: int) -> None:
        super().__init__(failures, total)

    def __str__(self) -> str:
        failures, total = self.args
        others = ", the others are done" * (len(failures) < total)
        return "\n  ".join([f"{len(failures)} of {total} cases failed{others}:", *failures])


class CaseEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that continues after failed cases, and lists them in an error at the end.

    After a failed case, ``engine.state.output`` is an empty list. There is one progress bar for all cases. One line per
    case shows its result, its seconds, and short forms of its warnings. These are all ``UserWarning`` in the loading of
    the case and until the end of its handlers. They are listed in full at the end. Handlers find the case as
    ``engine.case``, and finished cases in ``engine.cases``.

    Args:
        device: where the network runs.
        val_data_loader: the dataset of the cases, which a :class:`common.program.cases.loader.CaseLoader` reads.
        network: its inferer and all else is in float32.
        prepare_batch: as for ``SupervisedEvaluator``.
        postprocessing: of "pred" of each case; writes the result. Handlers find it as ``engine.postprocessing``.
        options: further arguments of ``SupervisedEvaluator``.

    Attributes:
        is_part: whether the run is a part of another, which itself reports the number of cases and their warnings.
        before, total: of such a part, the cases before its own, and of all parts; total is None for no other parts.

    Raises:
        CasesFailedError: at the end of the run, if cases failed; the message lists them with the reasons.
    """

    is_part = False
    before = 0
    total: int | None = None
    state: Any
    data_loader: Any

    def __init__(
        self,
        device: torch.device,
        val_data_loader: Any,
        network: nn.Module,
        prepare_batch: Callable = prepare_lr_hr,
        postprocessing: Callable | None = None,
        **options: Any,
    ) -> None:
        self.postprocessing = postprocessing  # before handlers are attached
        options |= {"prepare_batch": prepare_batch, "postprocessing": postprocessing}
        super().__init__(device, CaseLoader(val_data_loader), network, **options)
        # Ignite logs epochs, which cases do not have, and errors, which are raised anyway.
        self.logger.setLevel(logging.CRITICAL)
        self.case: Case | Any = None
        self.cases: list[Case] = []
        self._failed: list[Case] = []
        self.add_event_handler(Events.GET_BATCH_STARTED, self._begin_case)
        # After the given handlers, because they can warn too.
        self.add_event_handler(Events.ITERATION_COMPLETED, self._finish_case)

    @property
    def failures(self) -> list[Case]:
        """The cases of the last run that failed."""
        return [case for case in self.cases if case.problem is not None]

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Process every case, then raise if any failed."""
        for case in self._failed:
            case.problem = None  # of an earlier run
        self.case, self.cases, self._failed = None, [], []
        # One of many processes may have no cases.
        if self.data_loader.cases:
            self._run_cases(global_epoch)
        else:
            print("no scans to do", flush=True)
        every = gather_items([format_case(case) for case in self.data_loader.cases])
        if failures := gather_items([case.failure for case in self.failures]):
            if get_rank()[0] > 0 and dist.is_initialized():
                sys.exit(1)  # the first process reports the failures
            raise CasesFailedError(failures, len(every))

    def _run_cases(self, global_epoch: int) -> None:
        started = time.perf_counter()
        self.state.epoch_length = len(self.data_loader)  # the cases may be others than at the start
        # Parts of a case are fractions of the total.
        every = self.total or len(self.data_loader)
        bar = make_bar(total=every, initial=self.before, unit="scan", unit_scale=True)
        with self._record_warnings(), bar as self.bar:
            super().run(global_epoch)
        if not self.is_part:
            print("\n".join(self._summarise(time.perf_counter() - started)), flush=True)

    def _begin_case(self) -> None:
        cases, number = self.data_loader.cases, len(self.cases)
        if number == len(cases):
            return  # Ignite calls once more than there are cases
        self.case = cases[number]
        self.case.started, self.case.ended, self.case.result = time.perf_counter(), 0.0, None
        self._problem_before = self.case.problem
        self.bar.set_description(self.case.name)

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        output: Any = []
        if self.case.problem is None:
            with (
                self.case.catch_problem(),
                fill_bar(self.bar, self.before + len(self.cases)),
                self.case.files.hold_back(),
            ):
                done = super()._iteration(engine, batchdata)
                self.case.move_files()
                output, self.case.result = done, done[0].get("saved_to") if isinstance(done, list) else None
        return output

    def _finish_case(self) -> None:
        case, self.case = self.case, None
        case.ended = time.perf_counter()
        self.cases.append(case)
        if case.problem != self._problem_before:
            self._failed.append(case)
        every = self.total or len(self.data_loader)
        count = f"{self.before + len(self.cases)}/{every} " if every > 1 else ""
        tqdm.write(count + case.summarise())
        sys.stdout.flush()
        if len(self.cases) == len(self.data_loader):
            self.bar.close()  # handlers may print at the end

    @contextmanager
    def _record_warnings(self) -> Iterator[None]:
        """Record the warnings about each case; other warnings, such as those about code, are shown as usual."""
        with warnings.catch_warnings():
            # By default Python shows a warning once. Appended, so filters of the user take precedence.
            warnings.simplefilter("always", UserWarning, append=True)
            others = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
                ahead = loading_ahead.get()
                case = self.case if ahead is None else self.data_loader.cases[ahead]
                if case is None or not issubclass(category, UserWarning):
                    others(message, category, *args, **kwargs)
                else:
                    case.add_warning(message, category)

            warnings.showwarning = show
            yield

    def _summarise(self, seconds: float) -> list[str]:
        """Final lines: the number of finished cases, and warnings, then notices, in full with the cases' names."""
        failed, warned = len(self.failures), sum(bool(case.warnings) for case in self.cases)
        counts = [f"{len(self.cases) - failed} of {len(self.cases)} done in {seconds:.1f} s"]
        counts += [f"{failed} failed"] * (failed > 0) + [f"{warned} with warnings"] * (warned > 0)
        return [", ".join(counts), *describe_warnings(self.cases)]


def describe_warnings(cases: Sequence[Case], most: int | None = _WARNINGS) -> list[str]:
    """Text for each of the different warnings, then notices, with the cases' names; at most ``most`` in full.

    Where only further lines of a text differ between cases, such as figures, those of the first are given.
    """
    about: dict[tuple[str, str], dict[str, str]] = {}
    for case in cases:
        for grade, text in case.list_warnings():
            first, _, further = case.strip_name(text).partition("\n")
            about.setdefault((grade, first), {})[case.name] = further
    lines = []
    for (grade, first), details in sorted(about.items(), key=lambda item: item[0][0] == "notice")[:most]:
        names, (further, *others) = [*details], details.values()
        several = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of_whom = f" Figures of {names[0]}:" if others and any(other != further for other in others) else ""
        lines.append(f"{grade}: {', '.join(names[:3])}{several}: {first}{of_whom}" + f"\n{further}" * bool(further))
    if most is not None and len(about) > most:
        lines.append(f"and {len(about) - most} other warnings or notices")
    return lines
