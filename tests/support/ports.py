"""Finds free ports for programs that cannot choose one themselves."""

import socket


def free_port() -> int:
    """A port that nobody listens on, and that nobody else is given within a minute.

    A connection that its server has closed stays in TIME_WAIT. Meanwhile the kernel gives its port to nobody who asks for
    just any; who names it gets it.
    """
    with socket.socket() as listener:
        # What closes takes this over; without it nobody could listen there in that minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()
        return address[1]
