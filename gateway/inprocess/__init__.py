"""The event bus as functions: in the process of the server, or in a program of your own."""
