"""What a checkpoint holds, and weights of other projects as checkpoints of ours."""
