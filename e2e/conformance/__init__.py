"""The official conformance suite, with and without Shadowcat in the middle.

`runs` says what is run and judges it; `suite` runs the suite and reads its results; `client_shim` is the client that
the suite starts where Shadowcat stands in front of its mock server.
"""
