"""A peer as the original's programs are: a gRPC client in Python, made from the .proto files.

usage: peer.py FOLDER-OF-GENERATED-CODE. A line in: "PORT SERVICE METHOD"; a line out: the answer as JSON, or {"error": code}.
"""
import json, sys

sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf.json_format import MessageToDict
import checks_pb2, checks_pb2_grpc
from multus.v1 import network_pb2, network_pb2_grpc

REQUESTS = {
    "gRPCgetLANWANCheckClientVersions": lambda: checks_pb2.LANWANOVPNCheckVersions(SoftwareVersion="1.0", ConfigVersion="1.0"),
    "gRPCGetmultusLANStatus": lambda: checks_pb2.EmptyRequestmultusLAN(String="x"),
    "List": network_pb2.ListChecksRequest,
}
STUBS = {"gRPCService": checks_pb2_grpc.gRPCServiceStub, "ChecksService": network_pb2_grpc.ChecksServiceStub}
channels = {}
for line in sys.stdin:
    port, service, method = line.split()
    if port not in channels:
        # It tries again at once: a server that has just been started must not be waited for.
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
        channels[port] = grpc.insecure_channel("127.0.0.1:" + port, options)
    request = REQUESTS.get(method, lambda: checks_pb2.RequestMessage(RequestMessageMemberString="x"))()
    try:
        answer = getattr(STUBS[service](channels[port]), method)(request, timeout=10)
        shown = MessageToDict(answer, preserving_proto_field_name=True, including_default_value_fields=True) \
            if "including_default_value_fields" in MessageToDict.__code__.co_varnames \
            else MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    except grpc.RpcError as error:
        shown = {"error": error.code().name}
    print(json.dumps(shown), flush=True)
