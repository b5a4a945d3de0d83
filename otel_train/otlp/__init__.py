"""Send OTLP: one request at a time over gRPC or HTTP, and what the receiver's answer means.

Its modules are imported one by one: a rank reads `protocol` alone, and must not load gRPC.
"""
