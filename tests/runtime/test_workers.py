"""Pieces of work side by side."""

import threading
from types import SimpleNamespace

import pytest
import torch

from common.runtime import workers
from common.runtime.workers import run_in_parallel

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 3])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


def test_results_come_in_order_from_as_many_threads_as_compute_each_with_one(threads):
    """Each piece waits for the others that are to be in work with it, and the first for those after it."""
    together, seen = threading.Barrier(threads), []

    def work(piece):
        together.wait(10)
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()))
        return piece * piece

    with torch.no_grad():
        assert [*run_in_parallel(work, range(12), CPU, 1)] == [i * i for i in range(12)]
    assert len({ident for ident, _, _ in seen}) == threads
    assert {(count, grad) for _, count, grad in seen} == {(1, False)}
    assert torch.get_num_threads() == threads


def test_few_pieces_are_ahead_of_the_results(threads):
    taken = []
    results = run_in_parallel(lambda piece: piece, (taken.append(i) or i for i in range(100)), CPU, 1)
    next(results)
    assert len(taken) <= threads + 1
    results.close()
    assert torch.get_num_threads() == threads


def test_a_failure_is_the_callers_and_ends_the_work(threads):
    done = []

    def work(piece):
        done.append(piece)
        return 1 / (piece - 2)

    with pytest.raises(ZeroDivisionError):
        list(run_in_parallel(work, range(1000), CPU, 1))
    assert len(done) < 20 and torch.get_num_threads() == threads


def test_no_more_are_in_work_than_memory_has_room_for(threads, monkeypatch):
    monkeypatch.setattr(workers, "measure_free_memory", lambda device: 8.0)
    for size, count in ((1, threads), (2, min(threads, 2)), (100, 1)):
        idents, together = set(), threading.Barrier(count)

        def work(piece, idents=idents, together=together):
            together.wait(10)
            idents.add(threading.get_ident())

        list(run_in_parallel(work, range(6), CPU, size))
        assert len(idents) == count


def test_a_gpu_has_one_after_the_other(threads):
    device = SimpleNamespace(type="cuda")
    assert {*run_in_parallel(lambda piece: threading.get_ident(), range(4), device, 1)} == {threading.get_ident()}
