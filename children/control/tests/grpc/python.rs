//! A client in Python that knows nothing but the address: everything else comes by reflection.

use std::process::Command;

use super::world::{World, skip};
use super::{ANY_PORT, IDLE, port, started};

/// Reflection v1 by hand: the package of that name for Python only asks for v1alpha.
const SCRIPT: &str = r#"
import sys, grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

address, token = sys.argv[1:]
channel = grpc.insecure_channel(address)
shown = (("authorization", "Bearer " + token),)

reflect = channel.stream_stream(
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    request_serializer=lambda message: message.SerializeToString(),
    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
)
def ask(**question):
    request = reflection_pb2.ServerReflectionRequest(**question)
    answer = next(iter(reflect(iter([request]), metadata=shown, timeout=30)))
    assert not answer.HasField("error_response"), answer
    return answer

services = [s.name for s in ask(list_services="").list_services_response.service]
print("services", *sorted(services))

pool = descriptor_pool.DescriptorPool()
added = set()
def add(answer):
    files = [descriptor_pb2.FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
    for file in files:
        if file.name in added:
            continue
        for needed in file.dependency:
            if needed not in added:
                add(ask(file_by_filename=needed))
        added.add(file.name)
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
for service in services:
    if service.startswith("multus."):
        add(ask(file_containing_symbol=service))

def call(service, method, **fields):
    kind = pool.FindServiceByName("multus.v1." + service).FindMethodByName(method)
    invoke = channel.unary_unary(
        "/multus.v1.%s/%s" % (service, method),
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(kind.output_type).FromString,
    )
    return invoke(GetMessageClass(kind.input_type)(**fields), metadata=shown, timeout=30)

for child in call("ChildrenService", "List").children:
    print("child", child.name, child.state)
print("stopped", call("ChildrenService", "Stop", name="idle") is not None)
"#;

#[tokio::test]
async fn a_python_client_needs_only_the_address() {
    const TEST: &str = "a_python_client_needs_only_the_address";
    let venv = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("grpc-python");
    let python = venv.join("bin/python");
    let run = |command: &mut Command| {
        let output = command.output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    };
    let has = |python: &std::path::Path| run(Command::new(python).args(["-c", "import grpc_reflection, grpc"])).is_ok();
    if !has(&python) {
        let made = run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).and_then(|_| {
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio", "grpcio-reflection"]))
        });
        if let Err(error) = made {
            let last = error.lines().last().unwrap_or_default().to_owned();
            return skip(TEST, &format!("no grpcio for Python: {last}"));
        }
    }
    let mut world = World::new();
    world.control(ANY_PORT);
    world.child("idle", IDLE);
    let token = world.token("python", 30);
    started(&mut world);
    world.wait_state("idle", "running");
    let address = format!("127.0.0.1:{}", port(&world));
    let said = run(Command::new(&python).args(["-c", SCRIPT, &address, &token])).expect("the client works");
    for line in ["child control running", "child idle running", "stopped True"] {
        assert!(said.lines().any(|said| said == line), "{line:?} in {said}");
    }
    for service in [
        "ChildrenService",
        "EventsService",
        "ConfigurationService",
        "LogsService",
        "FaultsService",
        "DaemonService",
        "IoService",
    ] {
        assert!(said.contains(&format!("multus.v1.{service}")), "{service} in {said}");
    }
    world.wait_state("idle", "stopped");
    let refused = run(Command::new(&python).args(["-c", SCRIPT, &address, "multus_00"])).expect_err("a wrong token");
    assert!(refused.contains("UNAUTHENTICATED"), "{refused}");
}
