"""Evaluation and inference case by case."""

from __future__ import annotations

import sys
from typing import Any

from monai.engines import SupervisedEvaluator
from tqdm import tqdm

from ..data.loaders.cases import CaseFailure
from ..data.naming import case_name, failure, root_cause
from ..memory import keep_freed_memory
from ..processes import gathered, rank


class CasesFailedError(RuntimeError):
    """Some cases of a batch failed; the others are done."""


class CaseEvaluator(SupervisedEvaluator):
    """A ``SupervisedEvaluator`` that goes on when a case fails, and fails at the end with a list of those that did.

    A failed case leaves ``engine.state.output`` an empty list. Args are those of ``SupervisedEvaluator``; the loader is
    a :class:`common.data.CaseLoader`.

    Raises:
        CasesFailedError: at the end of the run, when cases failed; the message lists them with the reasons.
    """

    def run(self, global_epoch: int = 1) -> None:
        """Process every case, then raise if any failed."""
        if self.state.device.type == "cpu":
            keep_freed_memory()
        self.failures: list[CaseFailure] = []
        with tqdm(total=len(self.data_loader), desc="cases", unit="case") as self.bar:
            # Of few scans a process may have none.
            if len(self.data_loader):
                super().run(global_epoch)
        cases = gathered([case_name(entry) for entry in self.data_loader.dataset.data])
        if failures := gathered(self.failures):
            if rank()[0] > 0:
                sys.exit(1)  # the first process says what failed
            listing = "\n  ".join(failure(case.case, case.reason) for case in failures)
            raise CasesFailedError(f"{len(failures)} of {len(cases)} cases failed, the others are done:\n  {listing}")

    def _iteration(self, engine: CaseEvaluator, batchdata: Any) -> Any:
        try:
            if isinstance(batchdata, CaseFailure):
                engine.failures.append(batchdata)
                return []
            try:
                return super()._iteration(engine, batchdata)
            except Exception as error:
                volume = batchdata.get("image", batchdata.get("lr"))
                name = volume.meta.get("filename_or_obj", "a case") if hasattr(volume, "meta") else "a case"
                name = name[0] if isinstance(name, (list, tuple)) else name
                engine.failures.append(CaseFailure(str(name), root_cause(error)))
                return []
        finally:
            engine.bar.update()
