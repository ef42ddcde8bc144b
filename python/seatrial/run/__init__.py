"""Carries a plan out: lifecycle decides, the runner performs."""
