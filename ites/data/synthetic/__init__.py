"""Synthetic people: postures, actions, motion, and the store made of them."""
