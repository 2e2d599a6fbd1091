"""The expert worker: a gRPC server that holds physical experts and computes their FFNs."""
