"""The privacy modes: who adds which noise, what that guarantees, and against whom."""
