"""ganzoo: train, compare, understand and trust generative adversarial networks."""

__version__ = "0.1.0.dev0"
