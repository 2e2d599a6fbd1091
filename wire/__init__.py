"""The contract between Orrery's processes: protos, frames, errors, clients."""
