"""Clients and servers of the official SDKs with Shadowcat between them.

`servers` are those that answer, `clients` those that ask; both are programs of their own, each with its own SDK.
`catalog` describes them, `matrix` plays every client against every server in every mode, and `resumption` cuts the
connection of a long call.
"""
