"""The router: the engine, everything of the model but the routed experts, and the dispatcher."""
