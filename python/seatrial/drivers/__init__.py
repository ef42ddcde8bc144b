"""Runtimes behind one face: each driver turns a sandbox's description into a start plan."""
