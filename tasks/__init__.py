"""The stages of the build, one module each; `dodo.py` joins them into a graph."""
