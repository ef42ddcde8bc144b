"""Load agents: processes that offer their share of one load, and the coordinator that leads them.

An agent is told what to do over one connection: a socket pair when it runs on this host, or a TCP
or unix socket. Both ends prove that they know the same token before anything else is said.
"""
