"""Networks of one architecture as one module: their weights are stacked along a new first axis.

The parameters of a member are a row of one matrix, sorted by parameter group, so that an optimizer step, a norm of
gradients and a copy of a member are operations on rows. The stacked weights are views of that matrix. ``torch.vmap``
evaluates all members by one call of the network; no operation mixes two members, so a member that overflows does not
change another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["StackedModule"]


class StackedModule:
    """The networks of a stack.

    Args:
        networks: the members, initialised; their parameters are copied.
        groups: the names of the parameters of each group, the same for all members.

    Attributes:
        rows: all parameters, one row for each member, (members, parameters).
        segments: the columns of each group.
    """

    def __init__(self, networks: Sequence[nn.Module], groups: Sequence[Sequence[str]], device: torch.device) -> None:
        self._template = deepcopy(networks[0]).to(device)
        self._names = [name for group in groups for name in group]
        parameters = [dict(network.named_parameters()) for network in networks]
        self._shapes = {name: parameters[0][name].shape for name in self._names}
        self.segments: list[slice] = []
        end = 0
        for group in groups:
            begin, end = end, end + sum(self._shapes[name].numel() for name in group)
            self.segments.append(slice(begin, end))
        flat = [torch.cat([each[name].detach().flatten() for name in self._names]) for each in parameters]
        self.rows = torch.stack(flat).to(device)
        buffers = [dict(network.named_buffers()) for network in networks]
        self._statistics = {name: torch.stack([each[name] for each in buffers]).to(device) for name in buffers[0]}
        self._view_rows()

    def __len__(self) -> int:
        return len(self.rows)

    def _view_rows(self) -> None:
        """Make the parameters of the network: views of the rows, with a gradient of their own."""
        views = self.split_rows(self.rows)
        self._weights = {name: view.detach().requires_grad_() for name, view in views.items()}

    def split_rows(self, rows: Tensor) -> dict[str, Tensor]:
        """Return rows of numbers, one for each parameter, as tensors of the shapes of the parameters."""
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = torch.split(rows, sizes, dim=-1)
        shaped = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(*rows.shape[:-1], *shape) for (name, shape), part in shaped}

    def outputs(self, x: Tensor, shared: bool, training: bool) -> Tensor:
        """Return the outputs of all members, (members, samples, ...).

        Args:
            x: the inputs of each member, (members, samples, ...); if ``shared``, of all members, (samples, ...).
            shared: whether all members have the same inputs.
            training: the mode of the network; statistics of batch norm change in training mode.
        """
        self._template.train(training)

        def evaluate(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Tensor:
            out: Tensor = functional_call(self._template, (parameters, buffers), (inputs,))
            return out

        # The kernel of flash attention has no rule for vmap, which would call it once for each member.
        with sdpa_kernel(SDPBackend.MATH):
            mapped = torch.vmap(evaluate, in_dims=(0, 0, None if shared else 0), randomness="error")
            out: Tensor = mapped(self._weights, self._statistics, x)
        return out

    def gradients(self, losses: Tensor) -> Tensor:
        """Return the gradients of the losses, one loss for each member, as rows."""
        parts = torch.autograd.grad(losses.sum(), [*self._weights.values()])
        return torch.cat([part.flatten(1) for part in parts], 1)

    def keep(self, members: Sequence[int]) -> None:
        """Remove all members but these."""
        chosen = torch.tensor(members, device=self.rows.device)
        self.rows = self.rows[chosen]
        self._statistics = {name: buffer[chosen] for name, buffer in self._statistics.items()}
        self._view_rows()

    def state_of(self, member: int) -> dict[str, Tensor]:
        """Return the state dict of a member's network, as copies on the CPU."""
        weights = self.split_rows(self.rows[member].detach().clone().cpu())
        return weights | {name: buffer[member].clone().cpu() for name, buffer in self._statistics.items()}
