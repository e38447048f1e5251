"""A CUDA device that is simulated on the CPU, for a process of its own, a :class:`Run`. It imports no ``common``.

Tensors have their values and lie in the CPU's memory; a table says of which storages the simulation holds that they are
on the GPU. A dispatch mode sees every operator, those of backward passes and optimizers too, refuses operands on
different devices as CUDA does, and puts what comes out where CUDA would. ``Tensor.device``, ``.to()``, ``.numpy()``,
``torch.cuda``, ``torch.save``, ``torch.load`` and ``torch.distributed`` tell and obey the table, so that training and
inference run as they are. What the host waits for is counted, with the line of ``common`` that asked for it. A CUDA
graph records operators and, as a GPU does, computes nothing; a replay computes them with the same tensors.

It relies on internals of torch, whose version constraints.txt pins. What it cannot show: lists of operators that CUDA's
autocast treats otherwise than the CPU's, and results that differ on a GPU.
"""

import collections
import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch._C import _AutoDispatchBelowAutograd
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")

# Whose operands may lie on different devices.
MIXED = {"copy_", "_to_copy", "set_", "lift_fresh", "lift_fresh_copy", "is_same_size", "record_stream"}
# Who takes a tensor by indices, which CUDA also reads from the CPU; and who takes no number from the CPU, as others do.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
STRICT = """cat stack mm bmm addmm baddbmm mv dot vdot convolution convolution_backward gather scatter scatter_add
    index_select index_add searchsorted bucketize embedding native_group_norm native_layer_norm native_batch_norm
    grid_sampler_2d grid_sampler_3d cumsum""".split()
# Who the host waits for.
WAITING = """_local_scalar_dense is_nonzero equal nonzero masked_select _unique2 unique_dim bincount repeat_interleave
    unique_consecutive _linalg_check_errors""".split()


class DeviceError(RuntimeError):
    """What CUDA would raise."""


class Storages:
    """Which storages are on the GPU. Weak references keep an address from being given to another meanwhile."""

    def __init__(self) -> None:
        self.references, self.purge_at = {}, 4096

    def __contains__(self, storage: torch.UntypedStorage) -> bool:
        reference = self.references.get(storage._cdata)
        return reference is not None and not reference.expired()

    def add(self, storage: torch.UntypedStorage) -> None:
        self.references[storage._cdata] = StorageWeakRef(storage)
        if len(self.references) > self.purge_at:
            self.references = {key: r for key, r in self.references.items() if not r.expired()}
            self.purge_at = max(4096, 2 * len(self.references))

    def discard(self, storage: torch.UntypedStorage) -> None:
        self.references.pop(storage._cdata, None)


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.untyped_storage()


def line_of_common() -> str:
    """The innermost line of ``common`` that is being executed."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/common/" in name and "/site-packages/" not in name:
            return f"{name[name.rindex('/common/') + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class Phase:
    """What one pass through a phase of a program asks of the device."""

    def __init__(self) -> None:
        self.waits = collections.Counter()  # of the host, and copies between the devices, by kind and line of common
        self.operators = 0  # that compute something on the device
        self.copies = 0  # between pinned memory and the device, for which the host does not wait

    def summary(self) -> dict[str, Any]:
        where = [f"{n} {kind} at {line}" for (kind, line), n in self.waits.most_common()]
        counts = {"waits": sum(self.waits.values()), "operators": self.operators, "copies": self.copies}
        return counts | {"where": where}


class Generator(torch.Generator):
    """Of the random numbers of a GPU."""

    def graphsafe_set_state(self, state: torch.Generator) -> None:
        self.set_state(state.get_state())


class Graph:
    """A CUDA graph: operators, with the tensors that they took and made."""

    def __init__(self, device: "SimulatedDevice") -> None:
        self.device, self.operators = device, []

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        """Record what is done; afterwards all tensors from before have their values again."""
        device, self.before, self.made = self.device, {}, Storages()
        random, device.graph = device.gpus[device.current.index].get_state(), self
        try:
            yield
        finally:
            device.graph = None
            device.gpus[device.current.index].set_state(random)
            for storage, values in self.before.values():
                storage.copy_(values)

    def keep(self, args: tuple, kwargs: dict) -> tuple:
        """Operands in their present shapes; values from before the recording are kept, numbers of the CPU are read."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and self.device.has(leaf):
                storage = storage_of(leaf)
                if storage not in self.made and storage._cdata not in self.before:
                    self.before[storage._cdata] = storage, storage.clone()
        return tree_map(self._fixed, (args, kwargs))

    def add(self, func: Any, operands: tuple, made: list[torch.Tensor | None]) -> None:
        self.operators.append((func, *operands, tree_map(self._fixed, made)))
        for tensor in made:
            if tensor is not None:
                self.made.add(storage_of(tensor))

    def _fixed(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return leaf.detach() if self.device.has(leaf) else leaf.clone()

    def replay(self) -> None:
        with torch.no_grad(), _AutoDispatchBelowAutograd(), _disable_current_modes():
            for func, args, kwargs, made in self.operators:
                args, kwargs = tree_map(self._fixed, (args, kwargs))
                results = tree_leaves(self.device.compute(func, args, kwargs, cuda=True))
                if func.namespace == "c10d":
                    results[-1].wait()  # a GPU's next operator waits
                for tensor, result in zip(made, results, strict=True):
                    if tensor is not None:
                        tensor.copy_(result)


class SimulatedDevice(TorchDispatchMode):
    """Every operator: devices are checked, results put on the device, waits counted."""

    def __init__(self) -> None:
        super().__init__()
        self.storages, self.pinned = Storages(), Storages()
        self.gpus = [Generator()]  # of the random numbers of each, as ``torch.cuda.default_generators``
        self.current = torch.device("cuda", 0)  # which this process uses
        self.nccl = False  # whether the processes were joined by it
        self.graph: Graph | None = None  # that is being recorded
        self.debug = 0  # of torch.cuda.set_sync_debug_mode
        self.phase: Phase | None = None
        self.phases: dict[str, list[Phase]] = collections.defaultdict(list)  # that are finished, in their order

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.layout is torch.strided and storage_of(tensor) in self.storages

    def put(self, tensor: torch.Tensor, cuda: bool, pinned: bool = False) -> torch.Tensor:
        """Say where a tensor is that has a storage of its own."""
        for storages, there in ((self.storages, cuda), (self.pinned, pinned)):
            (storages.add if there else storages.discard)(storage_of(tensor))
        return tensor

    def is_cuda(self, device: Any) -> bool:
        device = torch.device(device) if isinstance(device, (str, torch.device)) else torch.device("cuda", device)
        if device.type == "cuda" and device.index not in (None, self.current.index):
            raise DeviceError(f"{device} is used by a process whose GPU is {self.current}")
        return device.type == "cuda"

    def wait(self, kind: str) -> None:
        if self.graph is not None:
            raise DeviceError(f"operation not permitted when stream is capturing ({kind})")
        if self.debug:
            name, _, line = line_of_common().partition(":")
            warnings.warn_explicit("called a synchronizing CUDA operation", UserWarning, name, int(line or 0))
        if self.phase is not None:
            self.phase.waits[kind, line_of_common()] += 1

    def copied(self, source: torch.Tensor, out: torch.Tensor, cuda: bool, non_blocking: bool) -> None:
        """Count a copy between the devices; only one to or from pinned memory need not be waited for."""
        if self.graph is not None:
            raise DeviceError("a recording would copy from memory that is used for something else in a replay")
        if not non_blocking or storage_of(source if cuda else out) not in self.pinned:
            self.wait("copy to the device" if cuda else "copy to the host")
        elif self.phase is not None:
            self.phase.copies += 1

    def begin(self) -> None:
        self.phase = Phase()

    def end(self, name: str) -> None:
        self.phases[name].append(self.phase)
        self.phase = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [self.has(tensor) for tensor in tensors]
        # What torch's own code makes is asked for on the CPU, where the tensors beside it seem to be to it.
        cuda = any(there) or (not tensors and sys._getframe(1).f_code.co_name == "_engine_run_backward")
        if kwargs.get("device") is not None:
            cuda, kwargs["device"] = self.is_cuda(kwargs["device"]) or cuda, CPU
        if pinned := kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False  # for which torch asks a driver
        generator = kwargs.get("generator")
        if cuda and generator is not None and generator not in self.gpus:
            raise DeviceError(f"{name}: Expected a 'cuda' device type for generator but found 'cpu'")
        self._check(name, args, tensors, there)
        operands = () if self.graph is None else self.graph.keep(args, kwargs)
        out = self.compute(func, args, kwargs, cuda)
        known = {storage_of(tensor)._cdata for tensor in tensors if tensor.layout is torch.strided}
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]
        new = [self.put(tensor, cuda, bool(pinned)) for tensor in results if storage_of(tensor)._cdata not in known]
        if self.graph is not None and cuda:
            made = [t if any(t is one for one in new) else None for t in tree_leaves(out)]
            self.graph.add(func, operands, made)
        if self.phase is not None and cuda and (new or name.endswith("_")):
            self.phase.operators += 1
        return out

    def compute(self, func: Any, args: tuple, kwargs: dict, cuda: bool) -> Any:
        draws = cuda and torch.Tag.nondeterministic_seeded in func.tags
        with self._own_random_state() if draws else contextlib.nullcontext():
            return func(*args, **kwargs)

    @contextlib.contextmanager
    def _own_random_state(self) -> Iterator[None]:
        own, cpu = self.gpus[self.current.index], torch.default_generator.get_state()
        torch.default_generator.set_state(own.get_state())
        yield
        own.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(cpu)

    def _check(self, name: str, args: tuple, tensors: list[torch.Tensor], there: list[bool]) -> None:
        if name.startswith("c10d::") and self.nccl and not all(there) and name != "c10d::barrier":
            raise DeviceError(f"{name}: No backend type associated with device type cpu")
        if not any(there):
            return
        if name == "copy_" and there[0] != there[1]:
            self.copied(tensors[1], tensors[0], there[0], args[-1] is True)
        elif name in WAITING:
            self.wait(name)
        if name in INDEXING:
            self._check_indices(name, *args[:3])
        elif name not in MIXED:
            self._check_operands(name, tensors, there)

    def _check_indices(self, name: str, base: torch.Tensor, indices: list, values: Any = None) -> None:
        cuda = self.has(base)
        for index in (index for index in indices if index is not None):
            if self.has(index) and not cuda:
                raise DeviceError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
            if index.dtype in (torch.bool, torch.uint8):
                self.wait("nonzero of a mask")
            elif cuda and not self.has(index):
                self.wait("copy of indices to the device")
        if isinstance(values, torch.Tensor) and values.ndim and self.has(values) != cuda:
            raise DeviceError(f"{name}: the values and what they are put into are on different devices")

    @staticmethod
    def _check_operands(name: str, tensors: list[torch.Tensor], there: list[bool]) -> None:
        """One number of the CPU may take part, but not be what is changed."""
        alone = [tensor for tensor, cuda in zip(tensors, there, strict=True) if not cuda]
        lists = name.startswith(("_foreach", "_fused", "_amp"))
        changed = name.endswith("_") and not lists and not there[0]
        if not alone or not (any(t.ndim for t in alone) or name in STRICT or changed or (len(alone) > 1 and not lists)):
            return
        found = ", ".join(f"{'cuda' if c else 'cpu'}{tuple(t.shape)}" for t, c in zip(tensors, there, strict=True))
        said = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        raise DeviceError(f"{said} ({name}: {found})")


class Run:
    """A function, ``module:name``, called with a simulated device and ``args`` in a process that prints to ``log``."""

    def __init__(self, log: Path, function: str, *args: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["matplotlib.figure", "monai.bundle", "monai.engines", "monai.handlers", "tensorboard"]
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.process = log, context.Process(target=_call, args=(log, function, *args))
        self.process.start()

    def finish(self) -> None:
        self.process.join()
        assert not self.process.exitcode, f"exit code {self.process.exitcode}\n{self.log.read_text()}"


def _call(log: Path, function: str, *args: Any) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    Figure.savefig = lambda figure, path, **options: Path(path).touch()  # to draw takes longer than what is tested
    device = install()
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(device, *args)


def install() -> SimulatedDevice:
    """Give this process a machine with one GPU, until it ends."""
    device = SimulatedDevice()
    for patch in (_patch_tensors, _patch_functions, _patch_files, _patch_cuda, _patch_graphs):
        patch(device)
    device.__enter__()
    return device


def _patch_tensors(device: SimulatedDevice) -> None:
    tensor = torch.Tensor
    to, clone, numpy, array, tolist = tensor.to, tensor.clone, tensor.numpy, tensor.__array__, tensor.tolist
    deepcopy, of_cpu = tensor.__deepcopy__, torch._C.TensorBase.device.__get__

    def goal(self, args, kwargs):
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, tensor):
            return other.device, other.dtype, kwargs.get("non_blocking", False), None
        place, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        return place, dtype or self.dtype, non_blocking, None if layout is torch.preserve_format else layout

    def moved(self, *args, copy=False, **kwargs):
        place, dtype, non_blocking, layout = goal(self, args, kwargs)
        here = device.has(self)
        cuda = here if place is None else device.is_cuda(place)
        out = to(self, dtype, **({} if layout is None else {"memory_format": layout}))
        if (copy or here != cuda) and storage_of(out)._cdata == storage_of(self)._cdata:
            out = clone(out)
        if here != cuda:
            device.put(out, cuda, pinned=non_blocking and here)  # as torch makes the copy to the host
            device.copied(self if self.dtype == out.dtype else out, out, cuda, non_blocking)
        return out

    def on_host(call):
        @functools.wraps(call)
        def checked(self, *args, **kwargs):
            if device.has(self):
                raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
            return call(self, *args, **kwargs)

        return checked

    def listed(self):
        if device.has(self):
            device.wait("tolist")
        return tolist(self)

    def pinned(self):
        if device.has(self):
            raise DeviceError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        return device.put(clone(self), False, pinned=True)

    def copied(self, memo):
        known = id(self) in memo
        out = deepcopy(self, memo)
        return out if known else device.put(out, device.has(self))

    tensor.device = property(lambda self: device.current if device.has(self) else of_cpu(self))
    tensor.is_cuda = property(device.has)
    tensor.is_cpu = property(lambda self: not device.has(self))
    tensor.get_device = lambda self: device.current.index if device.has(self) else -1
    tensor.to, tensor.tolist, tensor.__deepcopy__ = moved, listed, copied
    tensor.pin_memory, tensor.is_pinned = pinned, lambda self: storage_of(self) in device.pinned
    tensor.cpu = lambda self, *args, **kwargs: moved(self, "cpu")
    tensor.cuda = lambda self, *args, **kwargs: moved(self, "cuda")
    tensor.type_as = moved
    tensor.new_tensor = lambda self, data, **kw: torch.tensor(data, **dict(dtype=self.dtype, device=self.device) | kw)
    tensor.numpy, tensor.__array__ = on_host(numpy), on_host(array)


def _patch_functions(device: SimulatedDevice) -> None:
    """Those that make tensors of other things; autocast, which is the CPU's; transforms that have no half precision."""
    made, taken, autocast, set_rng_state = torch.tensor, torch.as_tensor, torch.autocast, torch.set_rng_state
    one_hot, group = torch.nn.functional.one_hot, torch.optim.Optimizer._group_tensors_by_device_and_dtype

    class Autocast(autocast):
        def __init__(self, device_type, dtype=None, **kwargs):
            dtype = dtype or (torch.float16 if device_type == "cuda" else None)
            super().__init__("cpu" if device_type == "cuda" else device_type, dtype=dtype, **kwargs)

    def tensor(data, *args, device=None, **kwargs):
        out = made(data, *args, **kwargs)
        return out if device is None else out.to(device)

    def as_tensor(data, dtype=None, device=None):
        out = data if isinstance(data, torch.Tensor) and dtype in (None, data.dtype) else taken(data, dtype=dtype)
        return out if device is None else out.to(device)

    def encoded(indices, classes=-1):
        if device.has(indices):
            device.wait("one_hot")  # looks at the indices
        return device.put(one_hot(device.put(indices.clone(), False), classes), device.has(indices))

    def restored(state):
        if device.has(state):
            raise TypeError("RNG state must be a torch.ByteTensor, found one on cuda:0")
        set_rng_state(state)

    def grouped(lists, *args, **kwargs):
        groups = group(lists, *args, **kwargs).items()
        return {(own[0][0].device, dtype): (own, indices) for (_, dtype), (own, indices) in groups}

    def whole(transform):
        @functools.wraps(transform)
        def checked(data, *args, **kwargs):
            if isinstance(data, torch.Tensor) and device.has(data) and data.dtype in (torch.bfloat16, torch.float16):
                raise DeviceError(f"{transform.__name__}: Unsupported dtype {data.dtype} on cuda, outside powers of 2")
            return transform(data, *args, **kwargs)

        return checked

    torch.tensor, torch.as_tensor, torch.set_rng_state = tensor, as_tensor, restored
    torch.asarray, torch.nn.functional.one_hot = as_tensor, encoded
    torch.optim.Optimizer._group_tensors_by_device_and_dtype = staticmethod(grouped)
    torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype = grouped
    torch.autocast = torch.amp.autocast = torch.amp.autocast_mode.autocast = Autocast
    for name in "fft fft2 fftn ifft ifft2 ifftn rfft rfft2 rfftn irfft irfft2 irfftn".split():
        setattr(torch.fft, name, whole(getattr(torch.fft, name)))


def _patch_files(device: SimulatedDevice) -> None:
    """A storage is saved with its place, and loaded to there, or to where ``map_location`` says."""
    storages = device.storages

    def restore(storage, location):
        if not location.startswith("cuda") or not device.is_cuda(location):
            return None
        storages.add(storage)
        return storage

    torch.serialization.register_package(0, lambda saved: str(device.current) if saved in storages else None, restore)


def _patch_cuda(device: SimulatedDevice) -> None:
    """What ``torch.cuda`` tells. Processes are joined by gloo in the place of nccl."""
    init = dist.init_process_group

    def joined(backend=None, *args, **kwargs):
        device.nccl = backend == "nccl"
        init("gloo" if device.nccl else backend, *args, **kwargs)

    def choose(chosen):
        chosen = torch.device(chosen) if isinstance(chosen, (str, torch.device)) else torch.device("cuda", chosen)
        device.current = torch.device("cuda", chosen.index or 0)

    dist.init_process_group = joined
    dist.get_backend = lambda *args: "nccl" if device.nccl else "gloo"
    always = {"is_available": True, "is_initialized": True, "_lazy_init": None, "empty_cache": None}
    always |= {"memory_allocated": 0, "memory_reserved": 0, "mem_get_info": (70 << 30, 80 << 30)}
    always |= {"get_device_capability": (9, 0), "get_device_name": "simulated"}
    told = {name: lambda *args, value=value: value for name, value in always.items()}
    told |= {"device_count": lambda: len(device.gpus), "current_device": lambda: device.current.index}
    told |= {"synchronize": lambda *args: device.wait("synchronize"), "set_device": choose}
    told["default_generators"] = device.gpus
    for name, value in told.items():
        for module in (torch.cuda, torch.cuda.random):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, value)


def _patch_graphs(device: SimulatedDevice) -> None:
    """CUDA graphs, streams and events, and the warnings about waits. All streams are in step."""

    class Stream:
        def __init__(self, *args):
            pass

        def wait_stream(self, other):
            pass

    class Event:
        def record(self, stream):
            pass

        def synchronize(self):
            pass

    streams = [Stream()]

    @contextlib.contextmanager
    def used(stream):
        streams.append(stream)
        yield
        streams.pop()

    @contextlib.contextmanager
    def recording(graph, stream, capture_error_mode="global"):
        with used(stream), graph.record():
            yield

    def debug(mode):
        device.debug = {"default": 0, "warn": 1}.get(mode, mode)

    told = {"Stream": Stream, "Event": Event, "stream": used, "current_stream": lambda *args: streams[-1]}
    told |= {"graph": recording, "CUDAGraph": lambda: Graph(device)}
    told["is_current_stream_capturing"] = lambda: device.graph is not None
    told |= {"get_sync_debug_mode": lambda: device.debug, "set_sync_debug_mode": debug}
    for name, value in told.items():
        setattr(torch.cuda, name, value)
