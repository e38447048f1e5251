"""A method's forward pass as named steps over named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn


class TensorGraph(nn.Module):
    """The forward pass of a method: each step applies a network to tensors of the batch or of earlier steps.

    Args:
        networks: modules by name: networks, degradation operators or filters.
        steps: ``{"output": ["network", "input", ...]}`` in order of computation. An input is the output of an earlier
            step or one of ``batch_keys``. A network that returns its own parameters takes no input.
        batch_keys: names of the tensors in the batch.

    Raises:
        ValueError: when a step names an unknown network or an input that no earlier step computes, when its output
            hides a batch key, or when a step is not a list of names. The message names the step and the known names.

    Example:
        >>> graph = TensorGraph({"half": torch.nn.AvgPool1d(2)}, {"lr": ["half", "hr"]}, batch_keys=["hr"])
        >>> graph({"hr": torch.ones(1, 1, 4)}, ["lr"])["lr"].shape
        torch.Size([1, 1, 2])
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        steps: Mapping[str, Sequence[str]],
        batch_keys: Sequence[str] = ("hr", "lr"),
    ) -> None:
        super().__init__()
        for name, module in networks.items():
            if not isinstance(module, nn.Module):
                raise ValueError(f"TensorGraph, network '{name}': expected a torch.nn.Module, got {module!r}.")
        self.networks = nn.ModuleDict(networks)
        self.batch_keys = tuple(batch_keys)
        self.steps: dict[str, tuple[str, tuple[str, ...]]] = {}
        known = list(self.batch_keys)
        for output, step in steps.items():
            if isinstance(step, str) or not step or not all(isinstance(name, str) for name in step):
                raise ValueError(
                    f"TensorGraph, step '{output}': expected [network, input, ...], all of them names, got {step!r}."
                )
            network, *inputs = step
            if network not in self.networks:
                raise ValueError(
                    f"TensorGraph, step '{output}': there is no network '{network}'; known: {', '.join(networks)}."
                )
            for name in inputs:
                if name not in known:
                    raise ValueError(
                        f"TensorGraph, step '{output}': its input '{name}' is neither in the batch nor the output of "
                        f"an earlier step; known there: {', '.join(known)}."
                    )
            if output in self.batch_keys:
                raise ValueError(f"TensorGraph, step '{output}': the name is taken by the batch; choose another.")
            self.steps[output] = (network, tuple(inputs))
            known.append(output)

    def check_outputs(self, names: Iterable[str], user: str) -> None:
        """Raise a ValueError that names ``user`` unless every name is a batch key or a step."""
        for name in names:
            if name not in self.steps and name not in self.batch_keys:
                known = ", ".join([*self.batch_keys, *self.steps])
                raise ValueError(f"{user}: its input '{name}' is not a tensor of the graph; known: {known}.")

    def find_dependent_steps(self, networks: Iterable[str]) -> frozenset[str]:
        """Names of the steps whose output depends on any of the networks."""
        owned = set(networks)
        dependent: set[str] = set()
        for output, (network, inputs) in self.steps.items():
            if network in owned or dependent.intersection(inputs):
                dependent.add(output)
        return frozenset(dependent)

    def list_steps(self, outputs: Iterable[str]) -> list[str]:
        """Names of the steps that these outputs need: for each output in turn, its inputs' steps come before it."""
        found: dict[str, None] = {}
        for output in outputs:
            if output in self.steps and output not in found:
                found |= dict.fromkeys([*self.list_steps(self.steps[output][1]), output])
        return list(found)

    def compute(self, output: str, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the step ``output`` from the values of its inputs."""
        network, inputs = self.steps[output]
        return self.networks[network](*[values[name] for name in inputs])

    def forward(self, batch: Mapping[str, torch.Tensor], outputs: Iterable[str]) -> dict[str, torch.Tensor]:
        """Compute the named outputs and the steps that they need.

        Args:
            batch: tensors by name, with at least the batch keys that are needed.
            outputs: names of steps or batch keys.

        Returns:
            The batch's tensors and every step that was computed, by name.
        """
        needed = set(outputs)
        for output in reversed(self.steps):
            if output in needed:
                needed.update(self.steps[output][1])
        values = dict(batch)
        for output in self.steps:
            if output in needed:
                values[output] = self.compute(output, values)
        return values
