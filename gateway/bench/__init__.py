"""How fast the gateway is, measured from outside: by its command and its public HTTP API.

                ┌─▶ gateway serve ◀───────┐
running ─ crew ─┼─▶ publisher ────────────┤   each a process of its own, which is told and answers in lines of JSON;
                ├─▶ receiver · readers ◀──┘   what each of them takes of the processor is measured from here
                ├─▶ filler: what is in a database before the gateway starts, by the gateway's own stores
                └─▶ plain_publish · plain_sse · plain_sender: what one would do without the gateway, measured beside it
"""
