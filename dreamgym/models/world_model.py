"""WorldModel: encoder + core + heads, one class for every system. Awake it observes, asleep it steps; agents see its features."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from dreamgym.models.contrastive import build_state_model
from dreamgym.models.dreamer_heads import DreamerHeads, DreamerHeadsConfig
from dreamgym.models.encoders import CodeStatsConfig, CodeStatsEncoder, ImageEncoder, VectorConfig, VectorEncoder
from dreamgym.models.ensemble import Ensemble, EnsembleConfig
from dreamgym.models.heads import ArrivalHeads, ArrivalHeadsConfig, LatentHeads, LatentHeadsConfig
from dreamgym.models.mdn_heads import MDNHeads, MDNHeadsConfig
from dreamgym.models.mdn_rnn import MDNRNN, MDNRNNConfig
from dreamgym.models.mixture_objective import MixtureObjective
from dreamgym.models.objectives import Contrastive, DreamerObjective, EnsembleObjective, LatentObjective, Losses
from dreamgym.models.observations import ObservationEncoder, ObservationEncoderConfig
from dreamgym.models.rssm import RSSM, RSSMConfig
from dreamgym.models.vae import VAEConfig
from dreamgym.structs import DreamDefaults, Prediction, SequenceBatch, Spec, StartBank

__all__ = ["WorldModel", "WorldModelConfig"]


@dataclass(frozen=True)
class WorldModelConfig:
    """Which parts a model is made of; the type of each config picks the class. Defaults: an ensemble for vectors."""

    encoder: VAEConfig | VectorConfig | ObservationEncoderConfig | CodeStatsConfig = field(default_factory=VectorConfig)
    core: RSSMConfig | EnsembleConfig | MDNRNNConfig = field(default_factory=EnsembleConfig)
    heads: LatentHeadsConfig | ArrivalHeadsConfig | DreamerHeadsConfig | MDNHeadsConfig = field(default_factory=ArrivalHeadsConfig)
    objective: LatentObjective | EnsembleObjective | DreamerObjective | MixtureObjective = field(default_factory=EnsembleObjective)
    defaults: DreamDefaults = field(default_factory=DreamDefaults)

    def __post_init__(self) -> None:
        parts = (self.encoder, self.core, self.heads, self.objective)
        if not any(all(map(isinstance, parts, fitting)) for fitting in _FITTING):
            known = "; ".join(", ".join(part.__name__ for part in fitting) for fitting in _FITTING)
            raise ValueError(f"parts {[type(part).__name__ for part in parts]} do not fit; what does: {known}.")


# Encoder, core, heads and objective that go together: all trained at once, an RSSM or an MDN-RNN on a frozen autoencoder's codes, an
# ensemble.
_FITTING = (
    (ObservationEncoderConfig, RSSMConfig, DreamerHeadsConfig, DreamerObjective),
    (VAEConfig, RSSMConfig, LatentHeadsConfig, LatentObjective),
    (CodeStatsConfig, MDNRNNConfig, MDNHeadsConfig, MixtureObjective),
    (VectorConfig, EnsembleConfig, ArrivalHeadsConfig, EnsembleObjective),
)


class WorldModel(nn.Module):
    """A learned simulator of `spec`. All tensors lead with [B]; noise is uniform in (0,1), [B, noise_lanes]; 0.5 gives the mean.

    The contract is docs/concepts.md; anything with `spec, noise_lanes, initial, step, predict, features` can be dreamt.
    """

    uncertainty_median: Tensor
    uncertainty_scale: Tensor
    reward_range: Tensor
    _feature_low: Tensor
    _feature_high: Tensor

    def __init__(self, spec: Spec, config: WorldModelConfig) -> None:
        super().__init__()
        self.spec = spec
        self.config = config
        self.encoder, self.core, self.heads = _build(spec, config)
        self.contrast = _build_contrast(config, self.encoder, self.core)
        self.initial_states: StartBank | None = None
        self.source: str | None = None  # where it was loaded from; environments pickle this instead of the weights
        self.source_options: dict[str, Any] = {}  # what else it takes to find it there
        self.register_buffer("uncertainty_median", torch.zeros(()))
        self.register_buffer("uncertainty_scale", torch.ones(()))
        self.register_buffer("reward_range", torch.zeros(2))
        low, high = _feature_bounds(self.core)
        self.register_buffer("_feature_low", torch.as_tensor(low), persistent=False)
        self.register_buffer("_feature_high", torch.as_tensor(high), persistent=False)

    # ---- what the dream needs -----------------------------------------------------------------------------------------

    @property
    def noise_lanes(self) -> int:
        """Uniforms one step consumes."""
        return self.core.noise_lanes

    @property
    def episode_lanes(self) -> int:
        """How many of the first lanes may be held for a whole episode."""
        return self.core.episode_lanes

    @property
    def defaults(self) -> DreamDefaults:
        """How this model wants to be dreamt."""
        return self.config.defaults

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.reward_range.device

    @property
    def feature_low(self) -> NDArray[np.float32]:
        """Lower bounds of features [F]."""
        return self._feature_low.cpu().numpy()

    @property
    def feature_high(self) -> NDArray[np.float32]:
        """Upper bounds of features [F]."""
        return self._feature_high.cpu().numpy()

    @property
    def reward_low(self) -> float:
        """Lowest reward of the training data: what a halted dream is assumed to go on paying."""
        return float(self.reward_range[0])

    def initial(self, batch_size: int) -> Any:
        """State before the first observation: zeros."""
        return self.core.initial(batch_size)

    def step(self, state: Any, action: Tensor, noise: Tensor, temperature: float | Tensor = 1.0) -> Any:
        """Dream one step: prior. action [B,A] model action, noise [B,L] uniform."""
        return self.core.step(state, action, noise, temperature)

    def predict(self, state: Any) -> Prediction:
        """Reward, continue probability and calibrated uncertainty of the state arrived at, each [B]."""
        reward, continue_prob = self.outcome(state)
        uncertainty = (self.disagreement(state) - self.uncertainty_median) / self.uncertainty_scale
        return Prediction(reward, continue_prob, uncertainty.clamp(min=0.0))

    def outcome(self, state: Any) -> tuple[Tensor, Tensor]:
        """Reward and continue probability of the state arrived at, each [B]: `predict` without the members, which cost as much."""
        features = self.core.features(state)
        return self.heads.reward(state, features), self.heads.continue_prob(state, features)

    def disagreement(self, state: Any) -> Tensor:
        """Raw spread [N] of the members that foretold this state: of the prior's heads if there are several, else of the heads' own."""
        if isinstance(self.core, RSSM) and self.core.config.prior_members > 1:
            return self.core.disagreement(state)
        return self.heads.disagreement(state)

    def features(self, state: Any) -> Tensor:
        """[B,F] within feature_low and feature_high: all an agent ever sees."""
        return torch.clamp(self.core.features(state), self._feature_low, self._feature_high)

    def decode(self, state: Any) -> Any:
        """The observation the model has in mind, [B,...] (a dict of those) in the observation space. Images cost 50 dream steps."""
        if isinstance(self.heads, DreamerHeads):
            return self.heads.decoder.predict(self.core.features(state))
        return self.encoder.decode(self.heads.code(state, self.core.features(state)))

    def in_range(self, state: Any) -> Tensor:
        """Whether the predicted observation lies in the training data's range: bool [B]."""
        if isinstance(self.heads, DreamerHeads):
            return self.heads.decoder.in_range(self.core.features(state))
        return self.encoder.in_range(self.heads.code(state, self.core.features(state)))

    # ---- awake --------------------------------------------------------------------------------------------------------

    def embed(self, obs: Any, *, grad: bool = False, dither: Tensor | None = None) -> Tensor:
        """Encode observations (or a dict of them) with any leading dimensions: [..., obs shape] -> [..., E].

        Without gradient unless `grad`. dither [...] uniform seeds the noise that hides a 5-bit image's steps; None: none.
        """
        lead, flat = self._flatten_leading(obs)
        options = {} if dither is None else {"dither": dither.flatten()}
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            return self.encoder.encode(flat, **options).unflatten(0, lead)

    def _flatten_leading(self, obs: Any) -> tuple[torch.Size, Any]:
        """The leading dimensions of observations, and the observations with those merged into one."""
        space = self.spec.observation_space
        if isinstance(obs, dict):
            assert isinstance(space, spaces.Dict)
            name, one = next(iter(obs.items()))
            lead = one.shape[: one.dim() - len(space[name].shape or ())]
            return lead, {name: part.reshape(-1, *part.shape[len(lead) :]) for name, part in obs.items()}
        shape = space.shape
        assert shape is not None
        return obs.shape[: obs.dim() - len(shape)], obs.reshape(-1, *shape)

    def observe(self, state: Any, prev_action: Tensor, obs: Any, is_first: Tensor, noise: Tensor) -> Any:
        """Update the belief with a real observation: posterior. is_first [B] resets state and action inside."""
        dither = noise[:, 0] if isinstance(self.encoder, ObservationEncoder) else None  # hashed, so the core may use the lane too
        return self.core.observe(state, prev_action, self.embed(obs, dither=dither), is_first, noise)[0]

    # ---- variants -----------------------------------------------------------------------------------------------------

    def with_dropout(self, rate: float | None) -> WorldModel:
        """This model with another dropout rate of its memory, in training and in dreams: a view that shares all tensors. None: itself.

        The view has no `source`, so other processes are sent its weights. Raises ValueError where the model has no dropout, or for a rate
        outside [0, 1).
        """
        if rate is None:
            return self
        if not isinstance(self.core, MDNRNN):
            raise ValueError(f"dropout is {rate}, but this model's {type(self.core).__name__} has none; leave it None.")
        view = copy.copy(self)
        view._modules = {**self._modules, "core": self.core.with_dropout(rate)}
        view.config = replace(self.config, core=view.core.config)
        view.source = None
        return view

    # ---- learning -----------------------------------------------------------------------------------------------------

    def loss(self, batch: SequenceBatch, noise: Tensor, start: Any = None) -> Losses:
        """Loss on rows [B,T]; noise [B,T,L] uniform; start: the states [B] before the first rows, zeros without."""
        return self.config.objective.losses(self, batch, noise, start)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What `loss` trains: core and heads, and the encoder unless it was trained on its own before."""
        parts: list[nn.Module] = [self.core, self.heads]
        if isinstance(self.encoder, ObservationEncoder):
            parts.insert(0, self.encoder)
        if self.contrast is not None:
            parts.append(self.contrast)
        unique = {id(parameter): parameter for part in parts for parameter in part.parameters()}
        return list(unique.values())

    # ---- keeping ------------------------------------------------------------------------------------------------------

    @property
    def model_info(self) -> dict[str, str]:
        """Where it comes from: {"repo": "user/repo", "revision": <commit>}, {"bundled": name}, {"folder": path}, or {} if built here."""
        if self.source is None:
            return {}
        if self.source.startswith("bundled:"):
            return {"bundled": self.source.removeprefix("bundled:")}
        repo, at, revision = self.source.rpartition("@")
        return {"repo": repo, "revision": revision} if at and not os.path.isabs(self.source) else {"folder": self.source}

    def save_pretrained(self, folder: Any, **options: Any) -> None:
        """Write a bundle (config.json, model.safetensors, initial_states.safetensors); see dreamgym.hub.bundle.save."""
        _bundle("save")(self, folder, **options)

    @classmethod
    def from_pretrained(
        cls,
        model: Any,
        *,
        device: str = "cpu",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: Any = None,
        local_files_only: bool = False,
    ) -> WorldModel:
        """Load a bundle folder, a bundled name, or "user/repo" of the Hub at a branch, tag or commit; see dreamgym.hub.bundle.

        Raises ModelNotFoundError, ModelAccessError, HubUnreachableError, InvalidModelError, IncompatibleModelError.
        """
        options = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
        return _bundle("from_pretrained")(model, device=device, **options)

    def push_to_hub(self, repo_id: str, *, license: str, **options: Any) -> Any:
        """Share it on the Hub as one commit, with a card made from what was measured; see dreamgym.hub.sharing.push_model.

        Returns the commit and the page. Raises ValueError for what must not be shared, ModelAccessError, HubUnreachableError.
        """
        return _bundle("push")(self, repo_id, license=license, **options)


_BUNDLE_DOOR: dict[str, Callable[..., Any]] = {}


def _bundle(name: str) -> Callable[..., Any]:
    """The hub layer lies above models, so it hands its functions down when it is imported; here it is only named."""
    if name not in _BUNDLE_DOOR:
        importlib.import_module("dreamgym.hub")
    return _BUNDLE_DOOR[name]


def _build(spec: Spec, config: WorldModelConfig) -> tuple[Any, Any, Any]:
    if isinstance(config.core, EnsembleConfig):
        assert isinstance(config.encoder, VectorConfig) and isinstance(config.heads, ArrivalHeadsConfig)
        vectors = VectorEncoder(spec, config.encoder)
        ensemble = Ensemble(config.core, obs_size=vectors.embed_size, action_size=spec.action_size)
        return vectors, ensemble, ArrivalHeads(config.heads, obs_size=vectors.embed_size)
    encoder: Any
    if isinstance(config.encoder, ObservationEncoderConfig):
        assert isinstance(config.core, RSSMConfig) and isinstance(config.heads, DreamerHeadsConfig)
        encoder = ObservationEncoder(spec, config.encoder)
        core = RSSM(config.core, embed_size=encoder.embed_size, action_size=spec.action_size)
        heads = DreamerHeads(
            config.heads,
            spec,
            stoch_size=core.stoch_size,
            deter_size=core.deter_feature_size,
            scaling=encoder.scaling,
            embed_size=encoder.embed_size,
            memory_size=core.deter_size,
        )
        return encoder, core, heads
    if isinstance(config.core, MDNRNNConfig):
        assert isinstance(config.encoder, CodeStatsConfig) and isinstance(config.heads, MDNHeadsConfig)
        encoder = CodeStatsEncoder(spec, config.encoder)
        memory = MDNRNN(config.core, embed_size=encoder.embed_size, action_size=spec.action_size)
        sizes = {"stoch_size": memory.stoch_size, "deter_size": memory.deter_size, "action_size": spec.action_size}
        return encoder, memory, MDNHeads(config.heads, **sizes)
    assert isinstance(config.encoder, VAEConfig) and isinstance(config.core, RSSMConfig) and isinstance(config.heads, LatentHeadsConfig)
    encoder = ImageEncoder(spec, config.encoder)
    core = RSSM(config.core, embed_size=encoder.embed_size, action_size=spec.action_size)
    sizes = {"feature_size": core.feature_size, "deter": core.deter_size, "embed_size": encoder.embed_size}
    return encoder, core, LatentHeads(config.heads, **sizes)


def _build_contrast(config: WorldModelConfig, encoder: Any, core: Any) -> nn.Module | None:
    """The state model q(s|o) that a contrastive objective needs."""
    if isinstance(config.objective, DreamerObjective) and isinstance(config.objective.observation, Contrastive):
        return build_state_model(config.objective.observation, encoder.embed_size, core.feature_size)
    return None


def _feature_bounds(core: RSSM | Ensemble | MDNRNN) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Finite bounds: a GRU's memory lies in [-1,1]; samples and standardised observations are clipped at 10."""
    if isinstance(core, MDNRNN):
        return -core.feature_bound, core.feature_bound
    bound = np.full(core.feature_size, 10.0, np.float32)
    if isinstance(core, RSSM):
        bound[: core.latent.flat_size] = core.latent.bound
        bound[core.latent.flat_size :] = 1.0  # features of a stochastic-only RSSM end before
    return -bound, bound
