"""From a run directory to everything that may be said about the run."""
