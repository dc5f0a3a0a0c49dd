"""A Dask worker preloads this module to fake the same results as `cheap_dodo`."""

from doit import doit_cmd

doit_cmd.reset_vars()

import cheap_dodo  # noqa: E402, F401
