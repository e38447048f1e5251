"""A CUDA device that is simulated on the CPU, for a process of its own, a :class:`Run`. It imports no ``common``.

Tensors have their values and lie in the CPU's memory; a table says of which storages the simulation holds that they are
on the GPU. A dispatch mode sees
every operator, those of backward passes and optimizers too, refuses operands on different devices as CUDA does, and
puts what comes out where CUDA would. ``Tensor.device``, ``.to()``, ``.numpy()``, ``torch.cuda``, ``torch.save`` and
``torch.load`` tell and obey the table, so that training and inference run as they are.

It relies on internals of torch, whose version constraints.txt pins. What it cannot show: lists of operators that CUDA's
autocast treats otherwise than the CPU's, and results that differ on a GPU.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")

# Whose operands may lie on different devices.
MIXED = {"copy_", "_to_copy", "set_", "lift_fresh", "lift_fresh_copy", "is_same_size", "record_stream"}
# Who takes a tensor by indices, which CUDA also reads from the CPU; and who takes no number from the CPU, as others do.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
STRICT = """cat stack mm bmm addmm baddbmm mv dot vdot convolution convolution_backward gather scatter scatter_add
    index_select index_add searchsorted bucketize embedding native_group_norm native_layer_norm native_batch_norm
    grid_sampler_2d grid_sampler_3d cumsum""".split()


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


class Generator(torch.Generator):
    """Of the random numbers of a GPU."""

    def graphsafe_set_state(self, state: torch.Generator) -> None:
        self.set_state(state.get_state())


class SimulatedDevice(TorchDispatchMode):
    """Every operator: devices are checked, and results put on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.storages, self.pinned = Storages(), Storages()
        self.gpus = [Generator()]  # of the random numbers of each, as ``torch.cuda.default_generators``
        self.current = torch.device("cuda", 0)  # which this process uses

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
        out = self.compute(func, args, kwargs, cuda)
        known = {storage_of(tensor)._cdata for tensor in tensors if tensor.layout is torch.strided}
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]
        for tensor in results:
            if storage_of(tensor)._cdata not in known:
                self.put(tensor, cuda, bool(pinned))
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
        if not any(there):
            return
        if name in INDEXING:
            self._check_indices(name, *args[:3])
        elif name not in MIXED:
            self._check_operands(name, tensors, there)

    def _check_indices(self, name: str, base: torch.Tensor, indices: list, values: Any = None) -> None:
        cuda = self.has(base)
        for index in (index for index in indices if index is not None):
            if self.has(index) and not cuda:
                raise DeviceError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
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
    for patch in (_patch_tensors, _patch_functions, _patch_files, _patch_cuda):
        patch(device)
    device.__enter__()
    return device


def _patch_tensors(device: SimulatedDevice) -> None:
    tensor = torch.Tensor
    to, clone, numpy, array = tensor.to, tensor.clone, tensor.numpy, tensor.__array__
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
        return out

    def on_host(call):
        @functools.wraps(call)
        def checked(self, *args, **kwargs):
            if device.has(self):
                raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
            return call(self, *args, **kwargs)

        return checked

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
    tensor.to, tensor.__deepcopy__ = moved, copied
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
    """What ``torch.cuda`` tells."""

    def choose(chosen):
        chosen = torch.device(chosen) if isinstance(chosen, (str, torch.device)) else torch.device("cuda", chosen)
        device.current = torch.device("cuda", chosen.index or 0)

    always = {"is_available": True, "is_initialized": True, "_lazy_init": None, "empty_cache": None}
    always |= {"memory_allocated": 0, "memory_reserved": 0, "mem_get_info": (70 << 30, 80 << 30)}
    always |= {"get_device_capability": (9, 0), "get_device_name": "simulated"}
    told = {name: lambda *args, value=value: value for name, value in always.items()}
    told |= {"device_count": lambda: len(device.gpus), "current_device": lambda: device.current.index}
    told |= {"synchronize": lambda *args: None, "set_device": choose}
    told["default_generators"] = device.gpus
    for name, value in told.items():
        for module in (torch.cuda, torch.cuda.random):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, value)
