"""What a user subclasses and is handed."""
