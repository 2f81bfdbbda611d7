"""What `archipel-site` has to say, as data: built from a hospital's folder, rendered by text.py or as JSON."""
