"""What is measured, a module each: `readings(crew, place, sizes)` is one repeat of it, with everything new."""
