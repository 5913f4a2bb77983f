"""Training stages: supervised fine-tuning, DPO and weight averaging. TRL's loops; our rows, masks and losses."""
