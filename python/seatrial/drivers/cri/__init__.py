"""Pods by the Container Runtime Interface (CRI), as Kubernetes starts them.

``messages`` makes the requests, ``containerd`` keeps a private daemon, ``driver`` is the driver;
the calls themselves are made by ``seatrial-launch cri-run``, which a start plan executes.
"""
