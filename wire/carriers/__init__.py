"""How dispatch messages travel below the one contract: in the gRPC stream, or beside it."""
