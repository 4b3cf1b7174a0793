"""What a report shows, as files for other programs."""
