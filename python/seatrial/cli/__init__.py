"""The command line: one thin file a command, and ``output`` as the only printer."""
