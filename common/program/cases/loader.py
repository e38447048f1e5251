"""Load cases one by one, so that a bad case does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch
from monai.data import list_data_collate

from .case import Case

# Number of the case that this thread loads ahead; None in other threads.
loading_ahead: ContextVar[int | None] = ContextVar("loading_ahead", default=None)


class CaseLoader:
    """Batches of one case in a dataset's order; None for a case with a problem, or one that cannot be loaded.

    Args:
        dataset: with the cases in ``dataset.data``; entries that are dictionaries become cases. If one cannot be
            loaded, the reason becomes its problem.
        ahead: whether a thread loads the next case while the present one is processed; None: if there is a GPU.
    """

    def __init__(self, dataset: Any, ahead: bool | None = None) -> None:
        self.dataset, self.ahead = dataset, torch.cuda.is_available() if ahead is None else ahead

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def cases(self) -> list[Case]:
        """The cases of the dataset."""
        self.dataset.data = [each if isinstance(each, Case) else Case(each) for each in self.dataset.data]
        return self.dataset.data

    def __iter__(self) -> Iterator[Any]:
        cases, following = self.cases, None
        with ThreadPoolExecutor(1) as pool:
            for i, case in enumerate(cases):
                batch = None
                if case.problem is None:
                    with case.catch_problem():
                        # What failed ahead is loaded again, because the case before may have needed the memory.
                        batch = self._load_case(i) if following is None or following.exception() else following.result()
                following = None
                if self.ahead and i + 1 < len(cases) and cases[i + 1].problem is None:
                    following = pool.submit(self._load_ahead, i + 1)
                yield batch

    def _load_case(self, i: int) -> Any:
        with self.cases[i].files.hold_back():
            return list_data_collate([self.dataset[i]])

    def _load_ahead(self, i: int) -> Any:
        loading_ahead.set(i)
        return self._load_case(i)
