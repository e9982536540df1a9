"""Modules that do something when they are imported. Each has one model, `Net`."""
