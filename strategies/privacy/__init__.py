"""How patients are protected: the plan, its cost, the private gradient, the noise."""
