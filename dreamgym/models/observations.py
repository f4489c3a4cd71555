"""Observations in and out of a jointly trained model: images by convolutions, vectors and classes by one MLP, Dict spaces by both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamgym.models.observation_scaling import ObservationScaling, quantise, restore
from dreamgym.nn.convolutions import ConvConfig, build_conv_decoder, build_conv_encoder
from dreamgym.nn.distributions import HALF_LOG_2PI
from dreamgym.nn.networks import MLPConfig, build_mlp
from dreamgym.structs import ObsTensors, Spec

__all__ = [
    "ObservationDecoder",
    "ObservationDecoderConfig",
    "ObservationEncoder",
    "ObservationEncoderConfig",
    "ObservationScaling",
    "quantise",
    "restore",
]


@dataclass(frozen=True)
class ObservationEncoderConfig:
    """How observations are read. Defaults: Dreamer V1 for images, V2 (4 layers of 400, elu) for vectors.

    symlog squashes vectors (V3); standardise divides out mean and std of the data seen by `fit` (no paper does; small models like it).
    bits 5 is PlaNet's quantisation of images, 8 none. One images entry serves every image of a Dict.
    """

    images: ConvConfig = field(default_factory=ConvConfig)
    vectors: MLPConfig = field(default_factory=lambda: MLPConfig(layers=4, units=400))
    symlog: bool = False
    standardise: bool = False
    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits is {self.bits}; expected 1 to 8.")


class ObservationEncoder(nn.Module):
    """Observations [N,...] (a dict of such for Dict spaces) -> embeddings [N,E], with gradient.

    `scaling` belongs to the encoder and is lent to the decoder. Raises ValueError for images that are not square, of 32, 64 or 128 pixels.
    """

    def __init__(self, spec: Spec, config: ObservationEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = ObservationScaling(spec, symlog=config.symlog, standardise=config.standardise, bits=config.bits)
        self.image_nets = nn.ModuleList(  # not a dict: torch refuses names such as "items" or "left.eye"
            build_conv_encoder(*_size_and_channels(name, part.shape), config.images) for name, part in self.scaling.images.items()
        )
        dense = self.scaling.dense_size
        self.vector_net = build_mlp(dense, None, config.vectors) if dense else None
        vector_width = (config.vectors.units if config.vectors.layers else dense) if dense else 0
        self.embed_size = sum(net.outputs for net in self.image_nets) + vector_width  # type: ignore[misc]

    def fit(self, obs: Any) -> None:
        """Learn the vectors' range, mean and std from observations [N,...] of real data."""
        self.scaling.fit(obs)

    def encode(self, obs: ObsTensors, dither: Tensor | None = None) -> Tensor:
        """[N,...] -> [N,E]. dither [N] uniform gives quantised images fresh noise; None, the middle of each bin."""
        scaling = self.scaling
        parts = scaling.parts(obs)
        found = [net(scaling.image(parts[name], dither).permute(0, 3, 1, 2)) for name, net in zip(scaling.images, self.image_nets)]
        if self.vector_net is not None:
            dense = [scaling.vector(parts)] if scaling.vectors else []
            dense += [scaling.one_hot(name, parts[name]) for name in scaling.classes]
            found.append(self.vector_net(torch.cat(dense, -1)))
        return found[0] if len(found) == 1 else torch.cat(found, -1)


@dataclass(frozen=True)
class ObservationDecoderConfig:
    """How observations are painted. Defaults: Dreamer V1 for images, V2 for vectors.

    likelihood "normal": unit normal, half the squared error plus 0.5 ln 2pi a number (PlaNet, V1, V2); "squared": the bare squared error,
    images through a sigmoid against [0,1] (V3, specs/dreamer.md C.1).
    """

    images: ConvConfig = field(default_factory=ConvConfig)
    vectors: MLPConfig = field(default_factory=lambda: MLPConfig(layers=4, units=400))
    likelihood: Literal["normal", "squared"] = "normal"

    def __post_init__(self) -> None:
        if self.likelihood not in ("normal", "squared"):
            raise ValueError(f"likelihood is {self.likelihood!r}; expected normal or squared.")


class ObservationDecoder(nn.Module):
    """Features [..., stoch + deter] -> what was seen. `scaling` is the encoder's: it says how targets were scaled, and stays its own."""

    def __init__(
        self, spec: Spec, config: ObservationDecoderConfig, stoch_size: int, deter_size: int, *, scaling: ObservationScaling
    ) -> None:
        super().__init__()
        self.config = config
        self._borrowed = (scaling,)  # in a tuple, so that its buffers are saved once, with the encoder
        sizes = {"stoch_size": stoch_size, "deter_size": deter_size}
        self.image_nets = nn.ModuleList(
            build_conv_decoder(*_size_and_channels(name, part.shape), config.images, **sizes) for name, part in scaling.images.items()
        )
        dense = scaling.dense_size
        self.vector_net = build_mlp(stoch_size + deter_size, dense, config.vectors) if dense else None

    @property
    def scaling(self) -> ObservationScaling:
        """The encoder's."""
        return self._borrowed[0]

    def losses(self, features: Tensor, obs: ObsTensors, dither: Tensor | None = None) -> dict[str, Tensor]:
        """Negative log likelihood (or squared error) of each part, summed over it: [...] float32 by the part's name.

        features [..., F], obs [..., part shape]; dither [...] must be what the encoder was given, since the noise is part of the target.
        """
        lead = features.shape[:-1]
        flat = features.reshape(-1, features.shape[-1])
        count = lead.numel()
        parts = {name: value.reshape(count, *value.shape[len(lead) :]) for name, value in self.scaling.parts(obs).items()}
        dither = None if dither is None else dither.reshape(-1)
        nets = dict(zip(self.scaling.images, self.image_nets))
        losses = {name: self._image_loss(net, flat, parts[name], dither) for name, net in nets.items()}
        if self.vector_net is not None:
            losses |= self._dense_losses(flat, parts)
        return {name: losses[name].view(lead) for name in sorted(losses)}

    def predict(self, features: Tensor) -> ObsTensors:
        """The likeliest observation of features [N,F], in the observation space: uint8 images, float32 vectors, int64 classes."""
        scaling = self.scaling
        means = {name: self._image_mean(net, features) for name, net in zip(scaling.images, self.image_nets)}
        predicted = {name: scaling.restore_image(mean - self._image_shift) for name, mean in means.items()}
        if self.vector_net is not None:
            vector, logits = self._dense(features)
            predicted |= dict(zip(scaling.vectors, scaling.restore_vector(vector).split(scaling.widths, -1)))
            predicted |= {name: its.argmax(-1) + int(scaling.classes[name].start) for name, its in logits.items()}
        return {name: predicted[name] for name in sorted(predicted)} if scaling.is_dict else predicted["obs"]

    def in_range(self, features: Tensor) -> Tensor:
        """Whether the predicted vectors lie in the range of the data, widened by a tenth: bool [N]. Images always do."""
        if self.vector_net is None or not self.scaling.vectors:
            return torch.ones(features.shape[0], dtype=torch.bool, device=features.device)
        return self.scaling.in_range(self.scaling.restore_vector(self._dense(features)[0]))

    @property
    def _image_shift(self) -> float:
        """From the scaling's [-0.5, 0.5] to where this likelihood has its targets."""
        return 0.5 if self.config.likelihood == "squared" else 0.0

    def _image_mean(self, net: nn.Module, features: Tensor) -> Tensor:
        """[N,Y,X,C] float32."""
        mean = net(features).permute(0, 2, 3, 1).float()
        return torch.sigmoid(mean) if self.config.likelihood == "squared" else mean

    def _image_loss(self, net: nn.Module, features: Tensor, images: Tensor, dither: Tensor | None) -> Tensor:
        target = self.scaling.image(images, dither)
        return self._error(self._image_mean(net, features), target.add_(self._image_shift) if self._image_shift else target)

    def _dense(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Predicted vectors [N,D], scaled, and each Discrete part's logits [N,n]."""
        assert self.vector_net is not None
        counts = [int(part.n) for part in self.scaling.classes.values()]
        vector, *logits = self.vector_net(features).float().split([sum(self.scaling.widths), *counts], -1)
        return vector, dict(zip(self.scaling.classes, logits))

    def _dense_losses(self, features: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        scaling = self.scaling
        vector, logits = self._dense(features)
        losses: dict[str, Tensor] = {}
        if scaling.vectors:
            pairs = zip(vector.split(scaling.widths, -1), scaling.vector(parts).split(scaling.widths, -1))
            losses = {name: self._error(mean, target) for name, (mean, target) in zip(scaling.vectors, pairs)}
        for name, its in logits.items():
            losses[name] = functional.cross_entropy(its, parts[name].long() - int(scaling.classes[name].start), reduction="none")
        return losses

    def _error(self, mean: Tensor, target: Tensor) -> Tensor:
        """Summed over all but the first dimension: [N]."""
        squared = (mean - target).square().flatten(1).sum(-1)
        return squared if self.config.likelihood == "squared" else 0.5 * squared + HALF_LOG_2PI * target[0].numel()


def _size_and_channels(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    height, width, channels = shape
    if height != width:
        raise ValueError(f"{name} is an image of {height}x{width}; expected a square one: set Preprocess(size=64).")
    return height, channels
