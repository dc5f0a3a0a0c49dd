"""Runs the heavy part of a stage in a child process, here or on a worker of a Dask cluster."""
