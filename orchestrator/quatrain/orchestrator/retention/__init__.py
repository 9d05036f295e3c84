"""What a job keeps, what it gives up, and the deletion of what was given up: event first, data after."""
