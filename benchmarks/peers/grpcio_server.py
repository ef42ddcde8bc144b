"""The official Python server with one method for everything: the message comes back as it went.

Prints the port it got, then serves until it is killed. Needs grpcio, which is no dependency of
Seatrial.
"""

from __future__ import annotations

import sys
from concurrent import futures

import grpc

WORKERS = 4


class Echo(grpc.GenericRpcHandler):
    """Takes every method as a unary one of bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Returns how a call is answered."""
        return grpc.unary_unary_rpc_method_handler(lambda message, _: message)


def main() -> int:
    """Serves on a port of the kernel's choice."""
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS))
    server.add_generic_rpc_handlers((Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
