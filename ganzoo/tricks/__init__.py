"""Tricks that change the game itself: what is updated, what is judged together, and by whom."""
