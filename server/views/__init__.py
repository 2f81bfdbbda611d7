"""What `archipel-coordinator` has to say, as data: built from its folder, rendered by text.py or as JSON."""
