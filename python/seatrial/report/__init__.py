"""Lays a run's summary out: terminal, page, figures, exports. It computes no statistics."""
