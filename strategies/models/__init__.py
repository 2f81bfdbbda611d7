"""What a study's model is: its parameters, its initial values, and how it is evaluated. One file a kind."""
