//! A gRPC client in Python, made from the `.proto` files, as the programs of the original are.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Output, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::Running;

/// Which fields an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// All of them.
    All,
    /// Those that are not empty.
    Set,
}

/// The client, in a process of its own.
#[derive(Debug)]
pub struct Peer(Running, BufReader<ChildStdout>);

/// What it takes to start one.
#[derive(Clone, Debug)]
pub(crate) struct How {
    pub(crate) python: PathBuf,
    code: PathBuf,
    files: [String; 2],
    fields: Fields,
}

impl Peer {
    /// Starts it by `command`, which is Python in the namespace of the server.
    pub(crate) fn start(how: &How, mut command: Command, script: &Path) -> Self {
        std::fs::write(script, include_str!("peer.py")).expect("own file");
        let fields = if how.fields == Fields::All { "all" } else { "set" };
        command.arg(script).arg(&how.code).arg(fields).args(&how.files);
        let mut peer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python is there");
        let answers = BufReader::new(peer.stdout.take().expect("a pipe"));
        Self(Running(peer), answers)
    }

    pub(crate) fn ask(&mut self, port: u16, service: &str, method: &str) -> Value {
        let question = format!("{port} {service} {method}\n");
        self.0.0.stdin.as_mut().expect("a pipe").write_all(question.as_bytes()).expect("it listens");
        let mut answer = String::new();
        self.1.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }
}

/// A Python with grpcio, and the code made from the `.proto` files.
pub(crate) fn how(tmp: &str, legacy: &str, fields: Fields) -> Result<How, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    let venv = Path::new(tmp).join("net-python");
    let (python, code) = (venv.join("bin/python"), venv.join("code"));
    let run = |command: &mut Command| {
        let Output { status, stderr, .. } = command.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&stderr).into_owned();
        if status.success() { Ok(()) } else { Err(text.lines().last().unwrap_or_default().to_owned()) }
    };
    if run(Command::new(&python).args(["-c", "import grpc, grpc_tools"])).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio-tools"]))
            .map_err(|error| format!("no grpcio-tools for Python: {error}"))?;
    }
    std::fs::create_dir_all(&code).map_err(|error| error.to_string())?;
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let include = |folder: &Path| format!("-I{}", folder.display());
    run(Command::new(&python)
        .args(["-m", "grpc_tools.protoc", &include(&proto.join("legacy")), &include(&proto)])
        .arg(format!("--python_out={}", code.display()))
        .arg(format!("--grpc_python_out={}", code.display()))
        .args([proto.join("legacy").join(legacy), proto.join("multus/v1/network.proto")]))?;
    Ok(How { python, code, files: [legacy.to_owned(), "multus/v1/network.proto".to_owned()], fields })
}
