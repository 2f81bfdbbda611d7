"""model_card.md, after Mitchell et al. 2019, and tripod.md, after Collins et al. 2024."""
