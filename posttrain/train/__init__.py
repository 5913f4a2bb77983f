"""Training stages: supervised fine-tuning, DPO and weight averaging. The loops are TRL's; rows, masks and losses are ours."""
