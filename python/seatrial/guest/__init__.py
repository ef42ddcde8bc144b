"""The guest: the program inside every sandbox, the root around it, and the channel to it.

It knows nothing of drivers: they put the binary into a root, hand it a socket, and give the other
end of that socket to ``GuestChannel``.
"""
