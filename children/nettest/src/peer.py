"""A peer as the original's programs are: a gRPC client in Python, made from the .proto files.

usage: peer.py FOLDER-OF-GENERATED-CODE all|set FILE... A line in: "PORT SERVICE METHOD [bytes]"; a line out: the answer as JSON with
all fields or those that are set, {"bytes": hexadecimal} as it came, or {"error": code}.
"""
import importlib, json, sys

code, fields, files = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.path.insert(0, code)
import grpc
from google.protobuf.json_format import MessageToDict

calls = {}
for file in files:
    name = file.removesuffix(".proto").replace("/", ".")
    messages = importlib.import_module(name + "_pb2")
    stubs = importlib.import_module(name + "_pb2_grpc")
    for service in messages.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            # Texts of a question are looked at by nobody.
            texts = {field.name: "x" for field in method.input_type.fields if field.type == field.TYPE_STRING}
            request = getattr(messages, method.input_type.name)
            path = "/%s/%s" % (service.full_name, method.name)
            calls[service.name, method.name] = getattr(stubs, service.name + "Stub"), lambda r=request, t=texts: r(**t), path
shown_fields = {"preserving_proto_field_name": True}
if fields == "all":
    old = "including_default_value_fields"
    new = "always_print_fields_with_no_presence"
    shown_fields[old if old in MessageToDict.__code__.co_varnames else new] = True
channels = {}
for line in sys.stdin:
    port, service, method, *how = line.split()
    if port not in channels:
        # It tries again at once: a server that has just been started must not be waited for.
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
        channels[port] = grpc.insecure_channel("127.0.0.1:" + port, options)
    stub, request, path = calls[service, method]
    try:
        if how:
            call = channels[port].unary_unary(path, lambda message: message.SerializeToString(), lambda answer: answer)
            shown = {"bytes": call(request(), timeout=10).hex()}
        else:
            answer = getattr(stub(channels[port]), method)(request(), timeout=10)
            shown = MessageToDict(answer, **shown_fields)
    except grpc.RpcError as error:
        shown = {"error": error.code().name}
    print(json.dumps(shown), flush=True)
