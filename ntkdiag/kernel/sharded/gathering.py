"""When the units of a sharded network are gathered and given up, so that few whole parameters exist at a time.

A unit is gathered before its forward, when a backward reaches its output, and when autograd wants one of its parameters
back; the unit before it is given up then. All processes take the same steps, so that each gathers the same unit at the
same time. There is one exchange for each parameter, and none runs ahead of the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from ntkdiag.distributed import Processes
from ntkdiag.kernel.sharded.units import Unit, address

# Of a tensor's attributes, those that show its values.
_VALUES = {"T", "mT", "H", "mH", "data", "real", "imag"}
# Module of a network that is measured → how its parameters are gathered.
_GATHERINGS: WeakKeyDictionary[nn.Module, Gathering] = WeakKeyDictionary()

Forward = Callable[..., Any]


class Gathering:
    """The units of one network, of which those are gathered that are needed at the moment.

    At any time that is one unit with the units around and inside it, and those whose forward is running.

    Args:
        processes: Who has the pieces.
        units: Of the network.

    Attributes:
        processes: Who has the pieces.
        whole: Whether all units stay gathered; see `all_gathered`.
    """

    def __init__(self, processes: Processes, units: list[Unit]) -> None:
        self.processes = processes
        self.whole = False
        self._units = units
        self._unit_of = {id(parameter): unit for unit in units for parameter in unit.whole.values()}
        self._running: list[Unit] = []
        self._failures = processes.failures
        self._following = True

    def serves(self, parameter: Tensor) -> bool:
        """Whether a parameter is gathered and given up here."""
        return id(parameter) in self._unit_of

    def require(self, parameters: Iterable[Tensor]) -> None:
        """Gather the units of these parameters; called by all processes."""
        self.gather(*{id(unit): unit for unit in map(self._unit, parameters) if unit is not None}.values())

    def gather(self, *wanted: Unit) -> None:
        """Gather these units and give up those that they are not nested with; called by all processes."""
        if self._failures < self.processes.failures:  # processes may have stopped with different units
            self._failures = self.processes.failures
            self.give_up()
        missing = [unit for unit in wanted if not unit.filled]
        if not missing:
            return
        with torch._C.DisableTorchFunction():  # modes that watch the network's operations do not see these
            for unit in self._units:
                if unit.filled and not (self.whole or self._is_needed(unit, wanted)):
                    unit.free()
            for unit in missing:
                unit.allocate()
            self.processes.meet(f"parameters of {', '.join(unit.name for unit in missing)}")
            for unit in missing:
                unit.gather()

    def any_process(self, own: bool) -> bool:
        """Whether something is so in any process; called by all. Of a network gathered whole it is each one's own affair."""
        return own if self.whole else any(each[0] for each in self.processes.meet("whether", int(own)))

    @contextmanager
    def all_gathered(self) -> Iterator[None]:
        """All units are gathered inside the block: the network is a plain one. Called by all processes."""
        before, self.whole = self.whole, True
        try:
            self.gather(*self._units)
            yield
        finally:
            self.whole = before
            if not before:
                self.give_up()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """What autograd has kept of the parameters can be looked at without being gathered; it may have no memory."""
        before, self._following = self._following, False
        try:
            yield
        finally:
            self._following = before

    def give_up(self) -> None:
        """Free all whole parameters."""
        for unit in self._units:
            unit.free()

    def around(self, forward: Forward) -> Forward:
        """The forward of the network itself, whose graph gathers what it needs again."""

        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            if self.whole:
                return forward(*args, **kwargs)
            with saved_tensors_hooks(self._keep, self._kept), _Used(self):
                return forward(*args, **kwargs)

        return run

    def inside(self, unit: Unit, forward: Forward) -> Forward:
        """The forward of one of a unit's modules, which finds it gathered."""

        @wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.gather(unit)
            self._running.append(unit)
            try:
                found = forward(*args, **kwargs)
            finally:
                self._running.pop()
            for tensor in _tensors((found,)):
                if tensor.requires_grad and not self.whole:
                    tensor.register_hook(lambda gradient: self.gather(unit))
            return found

        return run

    def _is_needed(self, unit: Unit, wanted: tuple[Unit, ...]) -> bool:
        return any(unit is each for each in self._running) or any(map(unit.is_in_line_with, wanted))

    def _unit(self, tensor: Tensor) -> Unit | None:
        return self._unit_of.get(id(tensor))

    def _keep(self, tensor: Tensor) -> tuple[Tensor, int, Unit | None]:
        """What autograd keeps of a tensor."""
        with torch._C.DisableTorchFunction():
            place = address(tensor)
            unit = next((unit for unit in self._units if place in unit.addresses), None)
            return tensor.detach(), tensor._version, unit

    def _kept(self, kept: tuple[Tensor, int, Unit | None]) -> Tensor:
        tensor, version, unit = kept
        if tensor._version != version:  # autograd leaves this check to those who keep
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation"
            )
        if unit is not None and self._following:
            self.gather(unit)
        return tensor


class _Used(TorchFunctionMode):
    """Gathers parameters that a network uses outside of the forward of their own module."""

    def __init__(self, gathering: Gathering) -> None:
        super().__init__()
        self._gathering = gathering

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") != "__get__" or getattr(func.__self__, "__name__", "") in _VALUES:
            self._gathering.require(_tensors((*args, *kwargs.values())))
        return func(*args, **kwargs)


def gathering_of(module: nn.Module) -> Gathering | None:
    """How the parameters of a network are gathered while it is measured; None for one that is not sharded."""
    return _GATHERINGS.get(module)


def gathered_whole(module: nn.Module) -> AbstractContextManager[None]:
    """All parameters of a network are there inside the block; called by all processes that measure it."""
    gathering = gathering_of(module)
    return nullcontext() if gathering is None else gathering.all_gathered()


@contextmanager
def by_units(root: nn.Module, gathering: Gathering, units: list[Unit]) -> Iterator[None]:
    """Inside the block, forwards and backwards of a network gather its units."""
    with ExitStack() as stack:
        for part in root.modules():
            _GATHERINGS[part] = gathering
            stack.callback(_GATHERINGS.pop, part, None)
        for unit in units:
            for module in unit.modules:
                stack.enter_context(_replaced(module, gathering.inside(unit, module.forward)))
        stack.enter_context(_replaced(root, gathering.around(root.forward)))
        stack.callback(gathering.give_up)
        yield


@contextmanager
def _replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Another forward of a module."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All tensors in a nest of tuples, lists, dicts and objects of data."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif hasattr(value, "__dataclass_fields__"):
            yield from _tensors(vars(value).values())
