"""One forward pass: feature maps of layers, the outputs, and gradients of the target.

It uses Captum's own hooks, so a layer has the same meaning as in Captum.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from captum._utils.common import _reduce_list, _run_forward, _sort_key_list
from captum._utils.gradient import _extract_device_ids, _forward_layer_distributed_eval
from captum._utils.typing import TargetType
from torch import Tensor
from torch.nn import Module
from torch.utils.checkpoint import CheckpointError

from captum_advise._core.grad_cam import unit_contributions
from captum_advise._core.targets import Target, resolve_target
from captum_advise._utils.checks import check_outputs
from captum_advise._utils.locks import lock_of_threads
from captum_advise._utils.randomness import random_states
from captum_advise.layouts import ReshapeTransform, Tokens

# A hook sees every call of its module, also from other threads, and scoring runs the model too.
# Two models may share a layer, so there is one lock for all of them.
_one_at_a_time = lock_of_threads()

# A layer's tensors, one tuple per device in the order of the batch.
_ByDevice: TypeAlias = tuple[tuple[Tensor, ...], ...]


@dataclass(frozen=True)
class LayerPass:
    """The result of one forward pass, with the graph from the layers to the outputs."""

    call: LayerCall
    feature_maps: tuple[Tensor, ...]  # the layers' tensors, (N, C, *spatial)
    outputs: Tensor
    runs: tuple[int, ...]  # how often each layer ran
    draws: bool  # whether random numbers were drawn
    _leaves: tuple[_ByDevice, ...]

    def at_last_layer(self) -> LayerPass:
        """The same pass, as if only the last of the layers had been looked at."""
        call, leaves = self.call, self._leaves[-1:]
        last = replace(
            call, layers=call.layers[-1:], reshape_transforms=call.reshape_transforms[-1:]
        )
        maps = last._joined(leaves)
        return LayerPass(last, maps, self.outputs, self.runs[-1:], self.draws, leaves)

    def check_examples(self) -> None:
        """Require one row per example in inputs, feature maps and outputs."""
        rows = {
            **_rows("inputs", self.call.inputs),
            **_rows("layer", self.feature_maps),
            "outputs": len(self.outputs),
        }
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {n}" for name, n in rows.items())
            raise ValueError(
                f"Inputs, layer and outputs must have one row per example, and have: {counts}. "
                "Wrap forward_func, or give reshape_transform, so that dimension 0 is the examples."
            )

    def only_feature_map(self) -> Tensor:
        r"""The feature map (N, C, \*spatial) of the one layer, with one row per example."""
        if len(self.feature_maps) != 1:
            raise ValueError(
                f"The layer has {len(self.feature_maps)} tensors, and a choice among groups of "
                "units needs a layer with one: use a relevance or None as unit_selection."
            )
        self.check_examples()
        return self.feature_maps[0]

    def contributions(
        self, target: Target, *, keep_graph: bool = False, **grad_kwargs: Any
    ) -> Tensor:
        r"""alpha_u A_u, (N, C, \*spatial), what each unit of the one layer adds to Grad-CAM."""
        (gradients,) = self.gradients(target, keep_graph=keep_graph, **grad_kwargs)
        return unit_contributions(self.feature_maps[0], gradients)

    def gradients(
        self, target: Target | TargetType, *, keep_graph: bool = False, **grad_kwargs: Any
    ) -> tuple[Tensor, ...]:
        """Gradients of each example's output at ``target`` with respect to ``feature_maps``."""
        # The caller may have switched gradients off, and then unbinding would cut the graph.
        with torch.enable_grad():
            if not isinstance(target, Target):
                target = resolve_target(self.outputs, target)
            selected = target.of(self.outputs)
            if keep_graph:
                if _frees_weights(self.call.forward_func):
                    raise ValueError(_FREES_WEIGHTS)
                grad_kwargs["retain_graph"] = True
            leaves = [leaf for by_device in self._leaves for leaves in by_device for leaf in leaves]
            try:
                gradients = torch.autograd.grad(torch.unbind(selected), leaves, **grad_kwargs)
            except CheckpointError as error:
                raise ValueError(_CHECKPOINTING) from error
            except RuntimeError as error:
                if any(text in str(error) for text in _NO_GRADIENT):
                    advice = _NO_GRADIENT_ADVICE
                    if _checkpoints(self.call.forward_func):
                        advice = _CHECKPOINTING
                    raise ValueError(advice) from error
                raise
        if any(gradient is None for gradient in gradients):  # allow_unused
            raise ValueError(_NO_GRADIENT_ADVICE)
        remaining = iter(gradients)
        grouped = tuple(
            tuple(tuple(next(remaining) for _ in leaves) for leaves in by_device)
            for by_device in self._leaves
        )
        return self.call._joined(grouped)


_NO_GRADIENT = ("does not require grad", "appears to not have been used in the graph")
_NO_GRADIENT_ADVICE = (
    "The target's output has no gradient with respect to the layer: the layer does not lead to "
    "it, or a step between them runs under torch.no_grad or torch.inference_mode, is detached or "
    "is quantised. Name another layer, or use a model in floating point that keeps the graph."
)


_CHECKPOINTING = (
    "The model uses gradient checkpointing, which runs layers again in the backward pass, without "
    "hooks: switch it off, as by model.gradient_checkpointing_disable() in transformers or "
    "model.set_grad_checkpointing(False) in timm."
)


def _checkpoints(forward_func: object) -> bool:
    names = ("gradient_checkpointing", "grad_checkpointing")
    return isinstance(forward_func, Module) and any(
        getattr(module, name, False) is True for module in forward_func.modules() for name in names
    )


_FREES_WEIGHTS = (
    "FullyShardedDataParallel frees its weights after one backward pass, and comparing groups of "
    "units takes two: shard the model by torch.distributed.fsdp.fully_shard, or use a relevance or "
    "None as unit_selection."
)


def _frees_weights(forward_func: object) -> bool:
    # Told by names, because the import takes time.
    return isinstance(forward_func, Module) and any(
        type(module).__name__ == "FullyShardedDataParallel"
        and str(module.sharding_strategy) != "ShardingStrategy.NO_SHARD"
        for module in forward_func.modules()
    )


@dataclass(frozen=True)
class LayerCall:
    """A call of a model that records layers on its way."""

    forward_func: Callable[..., Any]
    layers: tuple[Module, ...]
    inputs: tuple[Tensor, ...]
    additional_forward_args: tuple[Any, ...] | None = None
    device_ids: list[int] | None = None
    attribute_to_layer_input: bool = False
    reshape_transforms: tuple[ReshapeTransform | None, ...] = (None,)
    layer_run: int | None = None

    def run(self, *, whole_graph: bool = False) -> LayerPass:
        """Run the model with gradients enabled from the layers on, or from its inputs on."""
        with torch.enable_grad():
            before = random_states(self.inputs)
            late = not whole_graph and _may_begin_late(self.forward_func, self.inputs)
            found = self._hooked_from_layers() if late else None
            leaves, outputs, runs = found or self._hooked()
            draws = random_states(self.inputs) != before
            check_outputs(outputs)
            feature_maps = self._joined(leaves)
        return LayerPass(self, feature_maps, outputs, runs, draws, leaves)

    @torch.no_grad()
    def outputs(self) -> Any:
        """The outputs only, without a graph."""
        inputs = cast("tuple[Tensor, ...]", _copies(self.inputs))
        return run_model(self.forward_func, inputs, _copies(self.additional_forward_args))

    @torch.no_grad()
    def feature_maps(self) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The layers' feature maps only, without a graph, and how often each layer ran."""
        leaves, _, runs = self._hooked()
        return self._joined(leaves), runs

    def inputs_seen(self) -> tuple[int, ...]:
        """Which inputs the run of the last layer depends on. It takes a pass of its own."""
        copies = tuple(
            tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor
            for tensor in self.inputs
        )
        floating = [index for index, tensor in enumerate(copies) if tensor.requires_grad]
        with torch.enable_grad():
            leaves, _, _ = replace(self, inputs=copies)._hooked()
            total = sum(one.sum() for by_device in leaves[-1] for one in by_device)
            gradients = torch.autograd.grad(
                cast(Tensor, total), [copies[index] for index in floating], allow_unused=True
            )
        return tuple(
            index
            for index, gradient in zip(floating, gradients, strict=True)
            if gradient is not None
        )

    @torch.no_grad()
    def _hooked_from_layers(self) -> tuple[tuple[_ByDevice, ...], Any, tuple[int, ...]] | None:
        """:meth:`_hooked` with a graph that begins at the first run of a layer.

        What runs before it keeps no activations. None where the model does not take that.
        """
        with ExitStack() as hooks:
            for layer in self.layers:
                register: Callable[..., Any] = layer.register_forward_hook
                if self.attribute_to_layer_input:
                    register = layer.register_forward_pre_hook
                # It runs before Captum's hook, which then makes leaves of the layer's tensors.
                hooks.enter_context(register(_begin_graph))
            try:
                found = self._hooked()
            except RuntimeError as error:
                if "leaf" in str(error):  # which the model changes in place
                    return None
                raise
            # Else the model has restored what it found before the layer.
            return found if torch.is_grad_enabled() else None

    def _hooked(self) -> tuple[tuple[_ByDevice, ...], Any, tuple[int, ...]]:
        """The tensors of each layer, the outputs, and how often each layer ran."""
        with (
            _forward_pass(self.forward_func, self.inputs),
            _uncompiled(),
            _recorded_runs(self.layers, self.attribute_to_layer_input) as runs,
        ):
            try:
                saved, outputs = _forward_layer_distributed_eval(
                    getattr(self.forward_func, "_orig_mod", self.forward_func),  # torch.compile
                    _copies(self.inputs),
                    list(self.layers),
                    additional_forward_args=_copies(self.additional_forward_args),
                    attribute_to_layer_input=self.attribute_to_layer_input,
                    forward_hook_with_return=True,
                    require_layer_grads=True,
                )
            except AssertionError as error:
                for text, advice in _LAYER_ADVICE.items():
                    if text in str(error):
                        raise ValueError(advice) from error
                raise
        self._check_order(list(saved))
        counts = tuple(max(map(len, runs[layer].values()), default=1) for layer in self.layers)
        if self.layer_run is not None:
            for layer, count in zip(self.layers, counts, strict=True):
                if count > 1 and not -count <= self.layer_run < count:
                    raise ValueError(
                        f"The layer ran {count} times in the forward pass: layer_run must be from "
                        f"0 to {count - 1}, got {self.layer_run}."
                    )
                if count > 1:
                    chosen = {d: every[self.layer_run] for d, every in runs[layer].items()}
                    saved[layer] = chosen
        ids = _extract_device_ids(self.forward_func, saved, self.device_ids)
        leaves = tuple(
            tuple(tuple(saved[layer][d]) for d in _sort_key_list(list(saved[layer]), ids))
            for layer in self.layers
        )
        return leaves, outputs, counts

    def _joined(self, layers: tuple[_ByDevice, ...]) -> tuple[Tensor, ...]:
        """The tensors of layers, each from all devices, as (N, C, *spatial)."""
        return tuple(
            tensor if transform is None else self._transformed(tensor, transform)
            for by_device, transform in zip(layers, self.reshape_transforms, strict=True)
            for tensor in _reduce_list(list(by_device))
        )

    def _transformed(self, tensor: Tensor, transform: ReshapeTransform) -> Tensor:
        if isinstance(transform, Tokens) and tensor.dim() == 3:
            sizes = {tuple(one.shape[2:]) for one in self.inputs if one.dim() == 4}
            if len(sizes) == 1 and all(sizes):
                transform = transform.for_image(tensor.shape[1], *sizes.pop())
        return _checked(transform(tensor), tensor, {len(one) for one in self.inputs if one.dim()})

    def _check_order(self, run: list[Module]) -> None:
        """Require that every layer ran, the last one last; ``run`` is in the order of the calls."""
        names = [f"layers[{index}]" for index in range(len(self.layers))]
        missing = [name for name, layer in zip(names, self.layers, strict=True) if layer not in run]
        if missing:
            raise ValueError(f"{', '.join(missing)}: {_DID_NOT_RUN}")
        if run[-1] is not self.layers[-1]:
            raise ValueError(
                f"layers must be in the order of the forward pass, and {names[-1]} ran before "
                f"{names[self.layers.index(run[-1])]}: put the layer that Grad-CAM would explain "
                "last."
            )


def run_model(
    forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], additional_forward_args: Any
) -> Any:
    """Run the model."""
    with _forward_pass(forward_func, inputs):
        return _run_forward(forward_func, inputs, None, additional_forward_args)


_DID_NOT_RUN = (
    "The layer did not run in the forward pass: it is not part of the model that forward_func "
    "runs, or it is inside a scripted or traced module, which calls no hooks; take "
    "the layer from the model that is explained, before it is scripted."
)
_LAYER_ADVICE = {
    "Forward hook did not obtain": _DID_NOT_RUN,
    "Given input is not a torch.Tensor": (
        "The layer returns (or takes) neither a tensor nor a tuple of tensors: name a module "
        "inside it that returns a tensor."
    ),
}


def _begin_graph(*_of_hook: object) -> None:
    torch.set_grad_enabled(True)


def _may_begin_late(forward_func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> bool:
    """Whether a model without gradients computes the same, and may run twice.

    Attention takes another way without gradients, with other last digits. The pieces of a model on
    several devices, and compiled scripts, have gradients of their own.
    """
    if not isinstance(forward_func, Module) or any(tensor.requires_grad for tensor in inputs):
        return False
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return False
    return not any(
        module.training
        or isinstance(module, torch.nn.DataParallel | torch.jit.ScriptModule)
        or "attention" in type(module).__name__.lower()
        for module in forward_func.modules()
    )


@contextmanager
def _forward_pass(forward_func: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Lock the model and explain errors of its use. The model's own errors pass unchanged."""
    with _one_at_a_time:
        try:
            yield
        except RuntimeError as error:
            if "Inference tensors" in str(error):
                raise ValueError(
                    "The inputs or the model were made under torch.inference_mode, which rules "
                    "out gradients: clone them outside of it, or use torch.no_grad instead."
                ) from error
            if any(tensor.dtype == torch.uint8 for tensor in inputs):
                raise ValueError(
                    "The inputs are of uint8 and the model does not take them: convert them to "
                    "floating point, as in inputs / 255, and normalise them as it expects."
                ) from error
            rows = _rows("inputs", inputs)
            if "must match" in str(error) and len(set(rows.values())) > 1:
                raise ValueError(
                    "The inputs must have one row per example, and have "
                    f"{', '.join(f'{name} {n}' for name, n in rows.items())}: pass what does not "
                    "belong to the examples as additional_forward_args, or bind it in a function."
                ) from error
            of_inputs, of_model = {tensor.device for tensor in inputs}, _devices(forward_func)
            if of_model and not of_inputs & of_model:
                raise ValueError(
                    f"The inputs are on {_listed(of_inputs)} and the model is on "
                    f"{_listed(of_model)}: "
                    "move the inputs to the model, as in inputs.to(device)."
                ) from error
            raise


def _uncompiled() -> AbstractContextManager[Any]:
    """Run compiled modules in eager mode, because compiled code does not call new hooks.

    torch has no switch for this before version 2.6.
    """
    # Nothing is compiled unless this module is loaded, and loading it takes seconds.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return cast("AbstractContextManager[Any]", torch.compiler.set_stance("force_eager"))
    return nullcontext()


@contextmanager
def _recorded_runs(
    layers: tuple[Module, ...], of_inputs: bool
) -> Iterator[dict[Module, dict[torch.device, list[tuple[Tensor, ...]]]]]:
    """What Captum's hooks keep of each layer, at every run instead of the last one."""
    runs: dict[Module, dict[torch.device, list[tuple[Tensor, ...]]]] = {}

    def record(layer: Module, tensors: Any) -> None:
        values = tuple(tensors) if isinstance(tensors, tuple | list) else (tensors,)
        if values and isinstance(values[0], Tensor):
            runs[layer].setdefault(values[0].device, []).append(values)

    with ExitStack() as hooks:
        for layer in layers:
            runs[layer] = {}
            # Not the module that hooks are given: that of a device may be a replica.
            hooks.enter_context(
                layer.register_forward_pre_hook(lambda _, given, own=layer: record(own, given))
                if of_inputs
                else layer.register_forward_hook(lambda _, __, out, own=layer: record(own, out))
            )
        yield runs


def _copies(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Copies of tensors: the model may change them, and Captum sets flags on a layer's inputs."""
    if values is None:
        return None
    return tuple(
        value.clone()
        if isinstance(value, Tensor) and value.is_floating_point() and not value.is_sparse
        else value
        for value in values
    )


def _checked(reshaped: object, tensor: Tensor, examples: set[int]) -> Tensor:
    if not isinstance(reshaped, Tensor):
        raise TypeError(f"reshape_transform must return a tensor, got a {type(reshaped).__name__}.")
    # Rows that are not the examples, as frames or tokens first, may be made the examples.
    is_by_example = len(reshaped) in {len(tensor), *examples}
    if reshaped.dim() < 3 or not is_by_example or reshaped.numel() > tensor.numel():
        raise ValueError(
            "reshape_transform must rearrange the layer's tensor as (N, C, *spatial); it turned "
            f"{tuple(tensor.shape)} into {tuple(reshaped.shape)}."
        )
    return reshaped


def _rows(name: str, tensors: tuple[Tensor, ...]) -> dict[str, int]:
    """How many rows each of the tensors has."""
    return {
        name if len(tensors) == 1 else f"{name}[{index}]": len(tensor) if tensor.dim() else 0
        for index, tensor in enumerate(tensors)
    }


def _devices(forward_func: Callable[..., Any]) -> set[torch.device]:
    if not isinstance(forward_func, Module):
        return set()
    return {parameter.device for parameter in forward_func.parameters()}


def _listed(devices: set[torch.device]) -> str:
    return ", ".join(sorted(map(str, devices)))
