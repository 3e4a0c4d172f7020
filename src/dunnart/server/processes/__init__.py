"""The protocol in processes of its own, which hand each session over to the application's process.

    application's process                                        protocol processes (`worker`)
    app loop     handlers, callbacks                             worker 0: acceptor, admission
    control loop Host ◄── Conversation ◄── Link ──────────────►  worker 1 …
                 sessions' sockets, pipes and ptys are handed over and go straight to the application or its programs

`placement` keeps the processes, `process` is the life of one of them, `conversation` answers what it asks, about
`connections`. On the other side `worker` is what runs there, and `remote` asks. Both talk in `frames` over a `link`;
`decisions` puts logins into frames and back.
"""
