"""Settings of PPO."""

from dataclasses import dataclass
from typing import ClassVar

from kiloworlds.core.checks import require_choice, require_flag, require_number, require_sizes
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.networks.mlp import activation


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults are those of PureJaxRL and CleanRL for small tasks."""

    networks: ClassVar[tuple[str, ...]] = ("auto", "mlp", "cnn")
    varies: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "gamma",
        "gae_lambda",
        "clip_range",
        "entropy_coefficient",
        "value_coefficient",
        "max_grad_norm",
        "adam_epsilon",
    )
    """Settings that one compiled program can hold many values of; others make another program."""

    num_steps: int = 128
    """Steps each environment takes per update."""
    num_epochs: int = 4
    """Passes over the rollout per update."""
    num_minibatches: int = 4
    """Parts a rollout is split into per epoch."""
    learning_rate: float = 2.5e-4
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Whether the learning rate falls linearly to zero over the training."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Smoothing of generalised advantage estimation."""
    clip_range: float = 0.2
    """How far the probability ratio may move before its gradient is cut."""
    clip_range_value: float | None = 0.2
    """How far a value may move per update (None: unclipped)."""
    normalize_advantage: bool = True
    """Whether advantages are standardised per minibatch."""
    entropy_coefficient: float = 0.01
    """Weight of the entropy bonus."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon."""
    network: str = "auto"
    """What reads observations: "mlp", two networks of hidden layers; "cnn", convolutions that policy
    and value function share (Mnih et al. 2015); or "auto": cnn for images of uint8, else mlp."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """mlp: widths of the hidden layers of the policy and of the value network."""
    activation: str = "tanh"
    """mlp: activation of the hidden layers: tanh, relu, elu, gelu or silu."""
    cnn_channels: tuple[int, ...] = (32, 64, 64)
    """cnn: channels of the three convolutions."""
    cnn_features: int = 512
    """cnn: width of the dense layer after the convolutions."""
    normalize_observations: bool = False
    """Whether observations are standardised by running statistics."""
    normalize_rewards: bool = False
    """Whether rewards are divided by the running deviation of discounted returns."""
    initial_log_std: float = 0.0
    """Log standard deviation continuous actions start with, in half ranges of the action space."""

    def __post_init__(self):
        for name in ("num_steps", "num_epochs", "num_minibatches"):
            require_number(name, getattr(self, name), 1, whole=True)
        for name in ("gamma", "gae_lambda"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in (
            "learning_rate",
            "clip_range",
            "entropy_coefficient",
            "value_coefficient",
            "max_grad_norm",
            "adam_epsilon",
        ):
            require_number(name, getattr(self, name), 0.0)
        if self.clip_range_value is not None:
            require_number("clip_range_value", self.clip_range_value, 0.0)
        require_number("initial_log_std", self.initial_log_std, -20.0, 20.0)
        for name in (
            "anneal_learning_rate",
            "normalize_advantage",
            "normalize_observations",
            "normalize_rewards",
        ):
            require_flag(name, getattr(self, name))
        for name, example in (("hidden_sizes", "(64, 64)"), ("cnn_channels", "(32, 64, 64)")):
            object.__setattr__(self, name, require_sizes(name, getattr(self, name), example))
        if len(self.cnn_channels) != 3:
            raise InvalidValueError(
                f"cnn_channels={self.cnn_channels} has {len(self.cnn_channels)} entries; the network "
                "has three convolutions, so give three, such as (32, 64, 64)."
            )
        require_number("cnn_features", self.cnn_features, 1, whole=True)
        require_choice("network", self.network, self.networks)
        activation(self.activation)
