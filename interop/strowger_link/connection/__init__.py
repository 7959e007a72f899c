"""Connections between two nodes, end to end over any labels (wire.md 6)."""
