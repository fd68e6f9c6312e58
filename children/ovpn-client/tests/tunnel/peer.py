"""A peer as the original's programs are: a gRPC client in Python, made from the .proto files.

usage: peer.py FOLDER-OF-GENERATED-CODE. A method in; a line out: the answer as JSON, or {"error": code}.
"""
import json, sys

sys.path.insert(0, sys.argv[1])
import grpc
from google.protobuf.json_format import MessageToDict
import ovpn_client_pb2 as legacy, ovpn_client_pb2_grpc
from multus.v1 import network_pb2 as v1, network_pb2_grpc

options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
channel = grpc.insecure_channel("127.0.0.1:6543", options)
old = ovpn_client_pb2_grpc.gRPCmultusOVPNClientStub(channel)
new = network_pb2_grpc.OpenVpnServiceStub(channel)
for line in sys.stdin:
    method = line.strip()
    try:
        if method == "gRPCgetmultusOVPNCheckVersions":
            answer = old.gRPCgetmultusOVPNCheckVersions(legacy.multusOVPNCheckVersions(SoftwareVersion="1"), timeout=10)
        elif method.startswith("gRPC"):
            answer = getattr(old, method)(legacy.EmptyRequestmultusOVPNClient(String="x"), timeout=10)
        else:
            answer = getattr(new, method)(getattr(v1, method + "Request")(), timeout=10)
        shown = MessageToDict(answer, preserving_proto_field_name=True)
    except grpc.RpcError as error:
        shown = {"error": error.code().name}
    print(json.dumps(shown), flush=True)
