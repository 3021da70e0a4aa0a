"""A courier without authority: starts, stages, relays. Outside the trusted base."""
