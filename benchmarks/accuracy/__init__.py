"""How right the recipes are, row by row of docs/accuracy.md."""
