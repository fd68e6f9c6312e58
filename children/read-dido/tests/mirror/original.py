"""The original's peer, as its programs are: gRPC from the .proto file, in plain text.

usage: original.py FOLDER-OF-GENERATED-CODE send PORT
       original.py FOLDER-OF-GENERATED-CODE receive PORT

send: a line in: eight numbers, or "status", or "versions"; a line out: "ok", what was answered, or the code of the error.
receive: says "ready"; then a line out for each message: its eight numbers.
"""
import sys
from concurrent import futures

sys.path.insert(0, sys.argv[1])
import grpc
import read_dido_pb2 as messages
import read_dido_pb2_grpc as services

FIELDS = ["DI%02d" % number for number in range(1, 9)]


def send(port):
    stub = services.gRPCmultusReadDIDOStub(grpc.insecure_channel("127.0.0.1:" + port))
    for line in sys.stdin:
        try:
            if line == "status\n":
                answer = stub.gRPCGetmultusReadDIDOStatus(messages.EmptyRequestmultusReadDIDO(String="x"), timeout=10)
                said = str(answer.ProcessOK)
            elif line == "versions\n":
                question = messages.multusReadDIDOVersions(SoftwareVersion="1.0", ConfigVersion="1.0")
                answer = stub.gRPCgetmultusReadDIDOVersions(question, timeout=10)
                said = answer.SoftwareVersion + " " + answer.ConfigVersion
            else:
                status = messages.MessageDigitalStatus(**dict(zip(FIELDS, map(int, line.split()))))
                stub.gRPCSetDigitalOutputs(status, timeout=10)
                said = "ok"
        except grpc.RpcError as error:
            said = error.code().name
        print(said, flush=True)


class Receiver(services.gRPCmultusReadDIDOServicer):
    def gRPCSetDigitalOutputs(self, request, context):
        print(*(getattr(request, field) for field in FIELDS), flush=True)
        return messages.EmptyRequestmultusReadDIDO(String="")


def receive(port):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    services.add_gRPCmultusReadDIDOServicer_to_server(Receiver(), server)
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


{"send": send, "receive": receive}[sys.argv[2]](sys.argv[3])
