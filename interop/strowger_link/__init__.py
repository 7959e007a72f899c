"""A second implementation of the link protocol of docs/wire.md, for nodes that are not switches."""
