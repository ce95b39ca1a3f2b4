"""A transparency log: tree, tiles, signed notes, checkpoints, proofs."""
