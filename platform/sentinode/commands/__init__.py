"""One module a step: its flags (a frozen model named in ``FLAGS``) and ``run``."""
