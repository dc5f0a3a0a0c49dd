"""What a worker of a Dask cluster loads first, to make up what `cheap_dodo` makes up."""

from doit import doit_cmd

doit_cmd.reset_vars()

import cheap_dodo  # noqa: E402, F401
