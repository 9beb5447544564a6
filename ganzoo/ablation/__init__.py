"""Ablations: a base and its variations, trained with the same seeds and compared in pairs."""
