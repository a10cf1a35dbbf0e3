"""All streams of this process, from all of them (`streaming`) down to one (`stream`) and what they share."""
