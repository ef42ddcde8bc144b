"""Other load generators as contenders: one file a tool, with its command line and its parser.

A parser is a pure function from what the tool printed to `Figures`, tested on captured outputs.
Times are what the tool itself calls latency, in ns; a figure that a tool does not print is absent.
"""
