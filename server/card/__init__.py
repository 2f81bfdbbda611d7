"""model_card.md, after Mitchell et al. 2019."""
