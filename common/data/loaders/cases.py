"""Load cases one by one, so that a bad case does not stop the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import list_data_collate

from ...io.naming import case_name, root_cause
from ...runtime.progress import step

# Number of the case that this thread loads ahead; None in other threads.
loading_ahead: ContextVar[int | None] = ContextVar("loading_ahead", default=None)


@dataclass(frozen=True)
class CaseFailure:
    """A case that could not be processed, and why."""

    case: str
    reason: str


class CaseLoader:
    """Batches of one case in a dataset's order; a :class:`CaseFailure` for a case that cannot be loaded.

    Args:
        dataset: of dictionaries, with the entries in ``dataset.data``. An entry with a "problem" is not loaded; this
            text is the reason of its failure.
        ahead: whether a thread loads the next case while the present one is processed.
    """

    def __init__(self, dataset: Any, ahead: bool = False) -> None:
        self.dataset, self.ahead = dataset, ahead

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        following: Future | None = None
        with ThreadPoolExecutor(1) as pool:
            for i in range(len(self)):
                batch = None if following is None else following.result()
                if batch is None or isinstance(batch, CaseFailure):
                    batch = self._load(i)  # again, because the case before may have needed the memory
                following = pool.submit(self._load_ahead, i + 1) if self.ahead and i + 1 < len(self) else None
                yield batch

    def _load(self, i: int) -> Any:
        entry = self.dataset.data[i]
        if "problem" in entry:
            return CaseFailure(case_name(entry), entry["problem"])
        try:
            with step():
                return list_data_collate([self.dataset[i]])
        except Exception as error:
            return CaseFailure(case_name(entry), root_cause(error))

    def _load_ahead(self, i: int) -> Any:
        loading_ahead.set(i)
        return self._load(i)


def prepare_lr_hr(
    batchdata: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor | None] | tuple[torch.Tensor, torch.Tensor | None, tuple, dict]:
    """The ``prepare_batch`` of cases: the scan is the input, HR the truth, a guide or further stacks a second input.

    Args:
        batchdata: with the scan as "lr", or else as "image"; optionally "hr", "guide" and "stacks" (further scans of
            an exam).
        device: where the volumes go.
        non_blocking: as for ``torch.Tensor.to``.

    Returns:
        The scan, and HR or None. With a guide also ``(guide,)`` and ``{}``, the further arguments of the network. With
        stacks ``(stacks,)``, and a guide by name.
    """

    def moved(key: str) -> Any:
        return batchdata[key].to(device, non_blocking=non_blocking) if key in batchdata else None

    pair = moved("lr" if "lr" in batchdata else "image"), moved("hr")
    if "stacks" in batchdata:
        stacks = [stack.to(device, non_blocking=non_blocking) for stack in batchdata["stacks"]]
        guides = {"guide": batchdata["guide"].to(device, non_blocking=non_blocking)} if "guide" in batchdata else {}
        return (*pair, (stacks,), guides)
    return (*pair, (moved("guide"),), {}) if "guide" in batchdata else pair
