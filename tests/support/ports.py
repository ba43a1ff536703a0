"""Finds free ports for programs that can't choose one themselves."""

import socket


def free_port() -> int:
    """A port that nothing listens on, and that nobody else gets within a minute.

    A connection that its server has closed stays in TIME_WAIT. Until that ends, the kernel gives its port only to a
    program that asks for this number.
    """
    with socket.socket() as listener:
        # The closed connection inherits this option. Without it, nothing could listen on the port in that minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address = listener.getsockname()
        with socket.create_connection(address):
            listener.accept()[0].close()
        return address[1]
