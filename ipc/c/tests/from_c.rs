//! The library as C and C++ programs get it: installed, found by pkg-config, compiled with all warnings as errors, run
//! against a real heartbeat page.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use multus_ipc::MonoNs;
use multus_ipc::checkpoint::{self, Disorder, Plan};
use multus_ipc::heartbeat::{self, Reader};
use multus_ipc::io;
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use multus_ipc::text::Text;
use multus_ipc::trace::Mark;

const IPC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DEADLINE_NS: u64 = 50_000_000;
/// More than a test may take, however busy the machine is.
const FOREVER_NS: u64 = 86_400_000_000_000;
const C: [&str; 2] = ["gcc", "-std=c99"];
const CPP: [&str; 2] = ["g++", "-std=c++11"];

#[test]
fn the_c_example_beats_in_both_lanes_and_leaves_in_good_order() {
    let Some(child) = compile("the C example", C, "examples/c/child.c", Link::Shared) else { return };
    let page = Page::new();
    let output = page.run(&child, &["5"]);
    assert_eq!(stdout(&output), "supervised with a deadline of 50000 us\n", "{output:?}");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    page.read(|reader| {
        assert!(reader.is_ready());
        assert_eq!(reader.look(0).sequence, 6, "ready and five turns");
        assert_eq!((reader.lanes(), reader.look(1).sequence), (2, 6), "opened and five turns");
        assert_eq!(reader.lane_name(1).to_string(), "poller");
        assert_eq!(reader.lane_deadline_ns(1), Some(100_000_000));
        assert!(reader.has_left(1) && !reader.has_left(0));
        assert!(reader.max_gap_ns(0) >= 10_000_000, "a turn takes 10 ms");
        let checkpoints = reader.checkpoints();
        assert_eq!((checkpoints.disorder(0), checkpoints.outside(0)), (0, 0));
        let (rounds, shortest, _) = checkpoints.times(0);
        assert_eq!((rounds, checkpoints.begun(0)), (5, None));
        assert!(shortest >= 10_000_000, "begin to end took {shortest} ns");
        assert_eq!((checkpoints.times(1).0, checkpoints.begun(1)), (5, None));
        let turn = [Mark::Checkpoint(0), Mark::Checkpoint(1), Mark::Beat];
        assert_eq!(marks(reader, 0), [&[Mark::Beat][..], &turn.repeat(5)].concat());
    });
}

#[test]
fn the_c_example_runs_by_hand() {
    let Some(child) = compile("the C example by hand", C, "examples/c/child.c", Link::Shared) else { return };
    let output = by_hand(&child, &["2"], None);
    assert_eq!((stdout(&output), output.status.code()), ("not supervised\n", Some(0)), "{output:?}");
    let output = by_hand(&child, &["two"], None);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_c_example_measures_a_beat() {
    let Some(child) = compile("the C example's measurement", C, "examples/c/child.c", Link::Shared) else { return };
    let output = Page::new().run(&child, &["--bench"]);
    eprint!("{}", stdout(&output));
    assert!(
        stdout(&output).starts_with("supervised: ") && stdout(&output).contains("ns per pass of a checkpoint ("),
        "{output:?}"
    );
}

#[test]
fn the_cpp_example_beats_in_both_lanes() {
    let Some(child) = compile("the C++ example", CPP, "examples/c/child.cpp", Link::Shared) else { return };
    let page = Page::new();
    let output = page.run(&child, &["3"]);
    assert_eq!((stdout(&output), output.status.code()), ("supervised\n", Some(0)), "{output:?}");
    page.read(|reader| {
        assert!(reader.is_ready());
        assert_eq!((reader.look(0).sequence, reader.look(1).sequence), (4, 4));
        assert!(reader.has_left(1));
    });
}

#[test]
fn every_function_does_what_the_header_says() {
    for (compiler, link) in [(C, Link::Shared), (C, Link::Static), (CPP, Link::Shared)] {
        let title = format!("every function from {} ({link:?})", compiler[0]);
        let Some(program) = compile(&title, compiler, "c/tests/every_function.c", link) else { continue };
        let page = Page::with(heartbeat::header(1, DEADLINE_NS), &plan(FOREVER_NS));
        let output = page.run(&program, &["supervised"]);
        assert!(output.status.success(), "{output:?}");
        page.read(|reader| {
            assert!(reader.is_ready());
            let sequences: Vec<u64> = (0..heartbeat::LANES).map(|lane| reader.look(lane).sequence).collect();
            assert_eq!(sequences, [3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
            assert_eq!(reader.lane_name(2).to_string(), "");
            assert_eq!(reader.lane_name(3).to_string(), "\u{fffd}");
            assert_eq!((reader.lane_deadline_ns(1), reader.lane_deadline_ns(2)), (Some(5_000_000), None));
            assert_eq!((reader.has_left(1), reader.has_left(2), reader.has_left(3)), (true, false, true));

            let said = reader.voice();
            let said = (said.status(), said.made(), said.notice(1), said.notice(2), said.notice(3));
            let [well, first, second] = ["well", "first", "second"].map(|text| Some(Text::new(text)));
            assert_eq!(said, (well, 3, first, second, Some(Text::EMPTY)));

            let checkpoints = reader.checkpoints();
            assert_eq!(checkpoint::disorder(checkpoints.disorder(0)), Disorder { from: Some(1), to: 1 });
            assert_eq!(checkpoints.disorder(0) & 0xFFFF, 1, "once");
            assert_eq!(checkpoints.disorder(1), 0);
            let (early, late) = (checkpoints.outside(0), checkpoints.outside(1));
            assert!(checkpoint::outside_ns(early) < FOREVER_NS && early & 0xFFFF == 1, "{early:#x}");
            assert!(checkpoint::outside_ns(late) >= 2_000_000 && late & 0xFFFF == 1, "{late:#x}");
            assert_eq!((checkpoints.times(0).0, checkpoints.times(1).0), (1, 1));
            assert_eq!(checkpoints.begun(1), None, "a lane that is closed is not waited for");
            let passed = [Mark::Checkpoint(0), Mark::Checkpoint(1), Mark::Checkpoint(1)];
            assert_eq!(marks(reader, 0), [[Mark::Beat; 3], passed].concat());
            let passed = [Mark::Checkpoint(2), Mark::Checkpoint(3), Mark::Checkpoint(2)];
            assert_eq!(marks(reader, 1), [&[Mark::Beat; 2], &passed[..]].concat());
        });

        let output = by_hand(&program, &["inert"], None);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        for (value, reason) in
            [("77", "MULTUS_HEARTBEAT_FD=77"), ("seven", "not a descriptor"), ("1", "not a descriptor")]
        {
            let output = by_hand(&program, &["refused"], Some(value));
            assert!(output.status.success() && stdout(&output).contains(reason), "{value}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "told on standard error: {output:?}");
        }
        let foreign = Page::with([7; 5], &Plan::default());
        let output = foreign.run(&program, &["refused"]);
        assert!(output.status.success() && stdout(&output).contains("not the expected page"), "{output:?}");
        foreign.read(|reader| assert_eq!(reader.look(0).sequence, 0, "a foreign page is not written"));
    }
}

#[test]
fn a_program_in_c_reads_lines_and_asks_for_outputs() {
    for (compiler, link) in [(C, Link::Shared), (CPP, Link::Shared)] {
        let title = format!("lines from {}", compiler[0]);
        let Some(program) = compile(&title, compiler, "c/tests/every_function.c", link) else { continue };
        let page = |words, header: [u64; 3]| {
            let fd = map::memfd(c"io", words).unwrap();
            let map = Mapping::writable(fd.as_fd()).unwrap();
            for (word, value) in map.words().iter().zip(header) {
                word.store(value, Ordering::Relaxed);
            }
            (fd, map)
        };
        let (image_fd, image) = page(io::IMAGE_WORDS, io::image_header());
        let (request_fd, requests) = page(io::REQUEST_WORDS, io::request_header());
        let writer = io::Writer::new(image.words()).unwrap();
        let line = |name, kind, owner| {
            let (name, unit, owner) = (Text::new(name), Text::EMPTY, Text::new(owner));
            io::Definition { name, unit, owner, kind, safe: 0.0, lowest: 0.0, highest: 10.0 }
        };
        let layout = writer.define(&[
            line("DI1", io::LineKind::DigitalInput, ""),
            line("DO1", io::LineKind::DigitalOutput, "in-c"),
            line("AO1", io::LineKind::AnalogueOutput, "other"),
        ]);
        let (changed, good) = (MonoNs(3), MonoNs(4));
        writer.set(0, &io::Live { value: 1.0, raw: 7, flags: 0, changed, good, changes: 5, done: 0 });
        writer.set(1, &io::Live { flags: io::BAD | io::FORCED, ..io::Live::default() });
        writer.begin("test", true, 1, 1_000_000, u64::MAX);
        writer.scanned(MonoNs::now(), 0, 0, false);
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let output = Command::new("sh")
            .args(["-c", "exec \"$0\" lines 7<\"$1\" 8<>\"$2\""])
            .args([program.as_os_str(), path(&image_fd).as_ref(), path(&request_fd).as_ref()])
            .envs([("MULTUS_IO_IMAGE_FD", "7"), ("MULTUS_IO_REQUEST_FD", "8"), ("MULTUS_NAME", "in-c")])
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .output()
            .unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let reader = io::RequestReader::new(requests.words()).unwrap();
        let request = reader.look(1).unwrap();
        assert_eq!((request.sequence, request.value, request.layout, reader.changes()), (1, 1.0, layout, 2));
        assert_eq!(reader.look(0), None, "an input is not asked for");
        assert!(reader.look(2).is_some(), "multus-io is to see who asks for what is not his");
    }
}

#[test]
fn header_library_test_and_manual_name_the_same_functions() {
    let header = read("include/multus.h");
    let mut declared = functions(&header);
    declared.sort();
    assert!(declared.len() > 10, "{declared:?}");
    for file in ["c/tests/every_function.c", "man/multus.3"] {
        let text = read(file);
        for function in &declared {
            assert!(text.contains(function.as_str()), "{file} lacks {function}");
        }
    }
    if !is_there("nm") {
        return skip("the names that the library exports", "nm is missing");
    }
    let nm = Command::new("nm").args(["-D", "--defined-only"]).arg(libraries().join("libmultus.so")).output().unwrap();
    let mut exported: Vec<&str> = stdout(&nm).lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    assert_eq!(exported, declared);
}

#[test]
fn the_numbers_of_the_header_are_those_of_the_crate() {
    let header = read("include/multus.h");
    let value = |name: &str| {
        let prefix = format!("#define {name} ");
        header.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(value("MULTUS_VERSION"), format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    assert_eq!(value("MULTUS_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MAJOR"));
    assert_eq!(value("MULTUS_VERSION_MINOR"), env!("CARGO_PKG_VERSION_MINOR"));
    assert_eq!(value("MULTUS_VERSION_PATCH"), env!("CARGO_PKG_VERSION_PATCH"));
    assert_eq!(value("MULTUS_LANES"), heartbeat::LANES.to_string());
    assert_eq!(value("MULTUS_ENV_FD"), format!("\"{}\"", multus_ipc::child::ENV_FD));
    assert_eq!(value("MULTUS_ENV_IO_IMAGE_FD"), format!("\"{}\"", multus_ipc::io_child::ENV_IMAGE_FD));
    assert_eq!(value("MULTUS_ENV_IO_REQUEST_FD"), format!("\"{}\"", multus_ipc::io_child::ENV_REQUEST_FD));
    assert_eq!(value("MULTUS_ENV_NAME"), format!("\"{}\"", multus_ipc::io_child::ENV_NAME));
    let name_bytes = multus_ipc::text::Text::<4>::EMPTY.words().len() * 8;
    assert_eq!(value("MULTUS_LANE_NAME_BYTES"), name_bytes.to_string());
    assert!(read("man/multus.3").lines().next().unwrap().contains(&format!("multusd {}", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_manual_page_is_clean_roff() {
    if !is_there("groff") {
        return skip("the manual page", "groff is missing");
    }
    let page = format!("{IPC}/man/multus.3");
    let output = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z", &page]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// What the examples pass: begin -> end -> begin, and from begin to end at least `least_ns`; in the lane poller from ask to
/// answer at most 1 ms, in any order.
fn plan(least_ns: u64) -> Plan {
    let mut plan = Plan::default();
    let main = plan.section("").unwrap();
    let [begin, end] = ["begin", "end"].map(|name| plan.checkpoint(main, name).unwrap());
    plan.order(begin, &[end], true);
    plan.order(end, &[begin], false);
    plan.deadline(begin, end, least_ns, 0).unwrap();
    let poller = plan.section("poller").unwrap();
    let [ask, answer] = ["ask", "answer"].map(|name| plan.checkpoint(poller, name).unwrap());
    plan.deadline(ask, answer, 0, 1_000_000).unwrap();
    plan
}

fn marks(reader: Reader<'_>, lane: usize) -> Vec<Mark> {
    let trace = reader.trace(lane).expect("the whole page");
    trace.marks(MonoNs::now()).into_iter().map(|(_, mark)| mark).collect()
}

/// A heartbeat page as multusd makes it.
struct Page(OwnedFd);

impl Page {
    fn new() -> Self {
        Self::with(heartbeat::header(1, DEADLINE_NS), &plan(5_000_000))
    }

    fn with(header: [u64; 5], plan: &Plan) -> Self {
        let fd = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
        let map = Mapping::writable(fd.as_fd()).unwrap();
        for (word, value) in map.words().iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, value) in map.words()[heartbeat::CHECKPOINTS..].iter().zip(plan.words()) {
            word.store(*value, Ordering::Relaxed);
        }
        Self(fd)
    }

    /// Runs a program that has this page as descriptor 7.
    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", "exec \"$@\" 7<&0 < /dev/null", "sh"])
            .arg(program)
            .args(arguments)
            .env("MULTUS_HEARTBEAT_FD", "7")
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .stdin(Stdio::from(self.0.try_clone().unwrap()))
            .output()
            .unwrap()
    }

    fn read(&self, look: impl FnOnce(Reader<'_>)) {
        let map = Mapping::read_only(self.0.as_fd()).unwrap();
        look(Reader::new(map.words()));
    }
}

fn by_hand(program: &Path, arguments: &[&str], fd: Option<&str>) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_LIBRARY_PATH", installed().join("lib")).env_remove("MULTUS_HEARTBEAT_FD");
    if let Some(fd) = fd {
        command.env("MULTUS_HEARTBEAT_FD", fd);
    }
    command.output().unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Shared,
    Static,
}

/// Compiles a file of `ipc/` against the installed library; `None` where the compiler is missing.
fn compile(title: &str, [compiler, standard]: [&str; 2], source: &str, link: Link) -> Option<PathBuf> {
    if !is_there(compiler) {
        skip(title, &format!("{compiler} is missing"));
        return None;
    }
    let prefix = installed();
    let name = format!("{}-{compiler}-{link:?}-{:?}", source.replace('/', "-"), std::thread::current().id());
    let program = prefix.join(name);
    let mut command = Command::new(compiler);
    command.args([standard, "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
    if compiler == CPP[0] {
        command.args(["-x", "c++"]);
    }
    command.arg(format!("{IPC}/{source}")).args(["-x", "none", "-pthread", "-o"]).arg(&program);
    for flag in flags(prefix) {
        // By its full name, since of two libraries the linker takes the shared one.
        let archive = prefix.join("lib/libmultus.a").display().to_string();
        command.arg(if matches!(link, Link::Static) && flag == "-lmultus" { archive } else { flag });
    }
    if matches!(link, Link::Static) {
        command.args(private_libraries(prefix));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// What pkg-config says; where it is missing, what it would say.
fn flags(prefix: &Path) -> Vec<String> {
    if !is_there("pkg-config") {
        return vec![
            format!("-I{}/include", prefix.display()),
            format!("-L{}/lib", prefix.display()),
            "-lmultus".into(),
        ];
    }
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let output = command.args(["--cflags", "--libs", "multus"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    stdout(&output).split_whitespace().map(str::to_owned).collect()
}

fn private_libraries(prefix: &Path) -> Vec<String> {
    let file = fs::read_to_string(prefix.join("lib/pkgconfig/multus.pc")).unwrap();
    let line = file.lines().find_map(|line| line.strip_prefix("Libs.private: ")).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// The library installed into a directory below `target`, anew for every run of the tests.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("multus-c");
        let _ = fs::remove_dir_all(&prefix);
        let mut install = Command::new(format!("{IPC}/c/install"));
        install.env_remove("DESTDIR").arg("--prefix").arg(&prefix).arg("--libraries").arg(libraries());
        let output = install.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        prefix
    })
}

/// Where the libraries are. Cargo makes libraries for C only on request, even for the tests of their own package.
fn libraries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--release", "--quiet", "--offline", "-p", "multus-c", "--target-dir"]).arg(target);
        let output = build.current_dir(IPC).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("release")
    })
}

fn functions(header: &str) -> Vec<String> {
    let code: String = header.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code)).collect();
    let words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '('));
    words
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("multus_"))
        .collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(format!("{IPC}/{file}")).unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Says why a test is skipped, here and in the file that `MULTUS_SKIP_LOG` names.
fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    eprintln!("skipped: {test}: {reason}");
    let log = std::env::var_os("MULTUS_SKIP_LOG");
    let file = log.and_then(|path| fs::OpenOptions::new().create(true).append(true).open(path).ok());
    if let Some(mut file) = file {
        let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    }
}
