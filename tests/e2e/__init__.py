"""End to end: the installed `gateway` command and real receivers, as processes, over loopback sockets."""
