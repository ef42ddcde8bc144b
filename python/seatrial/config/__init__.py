"""From a TOML file to an ``Experiment`` (``load``), and from that to a ``Plan`` (``expand``)."""
