"""A module that obeys every law, and for each law one that breaks it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Device = torch.device | str | None


class Block(nn.Module):
    """Two convolutions with a norm and a constant between them."""

    scale: Tensor

    def __init__(
        self,
        in_channels: int = 2,
        *,
        width: int = 4,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.first = nn.Conv2d(in_channels, width, 3, padding=1, device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(width, device=device, dtype=dtype)
        self.drop = nn.Dropout(0.1)
        self.last = nn.Conv2d(width, 3, 3, stride=2, padding=1, device=device, dtype=dtype)
        self.register_buffer("scale", torch.full((1,), 0.5, device=device, dtype=dtype))

    def check(self, input: Tensor) -> None:
        if input.ndim != 4 or input.shape[1] != self.in_channels:
            raise ValueError(
                f"input must be (B, {self.in_channels}, H, W); got {tuple(input.shape)}"
            )

    def features(self, input: Tensor) -> Sequence[Tensor]:
        inner = self.drop(torch.tanh(self.norm(self.first(input))))
        return [inner, self.last(inner) * self.scale]

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        return self.features(input)[-1]


class ForgetsTheDevice(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        self.gain = nn.Parameter(torch.ones(1, dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.gain


class ForgetsTheDtype(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype and torch.float32)


class KnowsNoDevice(Block):
    def __init__(self) -> None:
        super().__init__()


class NamesTheCpu(Block):
    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        return output if input.device.type == "cpu" else torch.zeros(output.shape, device="cpu")


class HoldsALooseTensor(Block):
    def forward(self, input: Tensor) -> Tensor:
        self.latest = [super().forward(input)]
        return self.latest[0].detach()


class DrawsElsewhere(Block):
    """Weights from a generator of its own, that no seed reaches."""

    generator = torch.Generator()

    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        with torch.no_grad():
            self.last.weight.normal_(generator=None if device else self.generator)


class DrawsNothing(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)


class LeavesStateOut(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        offset = torch.rand(1, device=device, dtype=dtype)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.get_buffer("offset")


class HoldsALambda(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        self.act = lambda x: x


class SharesWhenCopied(Block):
    def __deepcopy__(self, memo: dict[int, object]) -> "SharesWhenCopied":
        return self


class TurnsEvaluationOn(Block):
    def forward(self, input: Tensor) -> Tensor:
        self.norm.eval()
        return super().forward(input)


class PrintsATensor(Block):
    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class HidesItsName(Block):
    def __repr__(self) -> str:
        return "a block"


class LeavesErrorsToTorch(Block):
    def check(self, input: Tensor) -> None:
        """Look at nothing."""


class TakesAnything(Block):
    def check(self, input: Tensor) -> None:
        """Look at nothing."""

    def features(self, input: Tensor) -> Sequence[Tensor]:
        flat = input if input.ndim == 4 else input.flatten(2)[..., None]
        return super().features(flat[:, :2])


class NamesNothing(Block):
    def check(self, input: Tensor) -> None:
        if input.shape[1] != self.in_channels or input.ndim != 4:
            raise ValueError("wrong shape")


class StartsInfinite(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        nn.init.constant_(self.scale, float("inf"))


class HasAnIdleParameter(Block):
    def __init__(self, *, device: Device = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device=device, dtype=dtype)
        self.idle = nn.Conv2d(2, 2, 1, device=device, dtype=dtype)


class HasADeadParameter(HasAnIdleParameter):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 0 * self.idle(input).mean()


class ScalesItsGradient(Block):
    def forward(self, input: Tensor) -> Tensor:
        output = super().forward(input)
        return output + 0.1 * (output - output.detach())


class MixesSamples(Block):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input - 0.1 * input.mean(0, keepdim=True))


class AveragesSamples(Block):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).mean(0)


class NeedsTwoSamples(Block):
    def forward(self, input: Tensor) -> Tensor:
        pooled = super().forward(input)
        if self.training:
            return pooled / pooled.std(0, keepdim=True)
        return pooled


class DropsInEvaluation(Block):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(input), 0.1, training=True)


class DrawsInEvaluation(Block):
    def forward(self, input: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(input)


class CountsInEvaluation(Block):
    def forward(self, input: Tensor) -> Tensor:
        if self.norm.num_batches_tracked is not None:
            self.norm.num_batches_tracked += 1
        return super().forward(input)


class RoundsToHalf(Block):
    def forward(self, input: Tensor) -> Tensor:
        rounded = input if input.dtype == torch.float64 else input.bfloat16().to(input.dtype)
        return super().forward(rounded)


class GivesFloat32(Block):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


class OwnConvolution(torch.autograd.Function):
    """Forgets that autocast is over when its backward pass runs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.conv2d(x, weight)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return nn.functional.conv_transpose2d(grad, weight), grad.sum() * x.mean() * weight


class BreaksUnderAutocast(HasAnIdleParameter):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(OwnConvolution.apply(input, self.idle.weight))


class CancelsUnderAutocast(Block):
    """A difference of large numbers, taken in eight bits."""

    def features(self, input: Tensor) -> Sequence[Tensor]:
        inner = super().features(input)[0]
        return [inner, ((self.last(inner) + 300) - 300) * self.scale]


class NeedsWideWeights(Block):
    def features(self, input: Tensor) -> Sequence[Tensor]:
        return super().features(input.float() if input.dtype == torch.bfloat16 else input)


class ViewsItsInput(Block):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.view(len(input), -1).view(input.shape))


class ReadsMemoryOrder(Block):
    def forward(self, input: Tensor) -> Tensor:
        first = input.as_strided((1,), (1,), input.storage_offset() + 1)
        return super().forward(input) + 0.1 * first.detach()


class ClampsInPlace(Block):
    def forward(self, input: Tensor) -> Tensor:
        with torch.no_grad():
            input.clamp_(-1, 1)
        return super().forward(input)


class GrowsFeatures(Block):
    def features(self, input: Tensor) -> Sequence[Tensor]:
        return super().features(input)[::-1]

    def forward(self, input: Tensor) -> Tensor:
        self.check(input)
        return self.features(input)[0]


class PoolsFeatures(Block):
    def features(self, input: Tensor) -> Sequence[Tensor]:
        return [m.mean((2, 3)) for m in super().features(input)]


BROKEN: list[tuple[str, type[Block]]] = [
    ("device_and_dtype_are_honoured", ForgetsTheDevice),
    ("device_and_dtype_are_honoured", ForgetsTheDtype),
    ("device_and_dtype_are_honoured", KnowsNoDevice),
    ("device_is_kept", NamesTheCpu),
    ("constant_tensors_are_buffers", HoldsALooseTensor),
    ("seed_decides_the_weights", DrawsElsewhere),
    ("seed_decides_the_weights", DrawsNothing),
    ("state_dict_round_trip", LeavesStateOut),
    ("copies_give_the_same_output", HoldsALambda),
    ("copies_give_the_same_output", SharesWhenCopied),
    ("mode_is_kept", TurnsEvaluationOn),
    ("repr_is_short_and_named", PrintsATensor),
    ("repr_is_short_and_named", HidesItsName),
    ("bad_inputs_are_named", LeavesErrorsToTorch),
    ("bad_inputs_are_named", TakesAnything),
    ("bad_inputs_are_named", NamesNothing),
    ("output_is_finite", StartsInfinite),
    ("every_parameter_gets_a_gradient", HasAnIdleParameter),
    ("every_parameter_gets_a_gradient", HasADeadParameter),
    ("gradients_are_exact_in_float64", ScalesItsGradient),
    ("samples_do_not_mix", MixesSamples),
    ("samples_do_not_mix", AveragesSamples),
    ("one_sample_trains", NeedsTwoSamples),
    ("evaluation_is_deterministic", DropsInEvaluation),
    ("evaluation_is_deterministic", DrawsInEvaluation),
    ("evaluation_is_deterministic", CountsInEvaluation),
    ("float32_agrees_with_float64", RoundsToHalf),
    ("float32_agrees_with_float64", GivesFloat32),
    ("autocast_stays_near", BreaksUnderAutocast),
    ("autocast_stays_near", CancelsUnderAutocast),
    ("half_precision_weights_work", NeedsWideWeights),
    ("half_precision_weights_work", GivesFloat32),
    ("memory_layout_changes_nothing", ViewsItsInput),
    ("memory_layout_changes_nothing", ReadsMemoryOrder),
    ("inputs_are_left_alone", ClampsInPlace),
    ("features_are_maps", GrowsFeatures),
    ("features_are_maps", PoolsFeatures),
]
"""Laws with a module that breaks each; those of compiler and export are tried elsewhere."""
