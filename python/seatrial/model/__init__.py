"""What everything else talks about: frozen data without I/O, clocks or third-party imports."""
