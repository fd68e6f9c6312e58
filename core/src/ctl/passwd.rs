//! `multusctl passwd`: users of the pages and the API. multus-control sees the change at once.

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};

use multus_users::{ADMIN, Hash, USER, User, Users, UsersError, password_fault};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::Context;
use super::output::{Failure, complain};

/// What is to be done with a user.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) level: Option<u32>,
    pub(crate) read_only: Option<bool>,
    /// The password comes on standard input, one line, instead of from the terminal.
    pub(crate) stdin: bool,
    pub(crate) remove: bool,
}

/// Makes a user, or gives one another password.
pub(crate) fn passwd(context: &Context, wanted: &Wanted) -> Result<(), Failure> {
    let file = Users::file(&context.config_dir());
    let name = &wanted.name;
    if wanted.remove {
        let (_, was_there) = Users::change(&file, |users| Ok::<_, UsersError>(users.remove(name))).map_err(failed)?;
        return was_there
            .then_some(())
            .ok_or_else(|| message(format!("there is no user {name:?} in {}", file.display())));
    }
    if let Some(fault) = multus_users::name_fault(name) {
        return Err(message(format!("{name:?} cannot be the name of a user: {fault}")));
    }
    // Before a password is asked for: what is wrong with the file need not wait.
    Users::load(&file).map_err(failed)?;
    let password = if wanted.stdin { from_stdin()? } else { from_terminal(name)? };
    if let Some(fault) = password_fault(name, &password) {
        return Err(message(format!("this cannot be the password: {fault}")));
    }
    let hash = Hash::of(&password).map_err(Failure::Message)?;
    let change = |users: &mut Users| {
        // The first user must be able to make the others.
        let level = if users.is_empty() { ADMIN } else { USER };
        let old = users.get(name).map_or((level, false), |user| (user.level, user.read_only));
        let (level, read_only) = (wanted.level.unwrap_or(old.0), wanted.read_only.unwrap_or(old.1));
        users.set(name, User { level, read_only, password: hash }).map_err(Fault::Set)?;
        Ok((level, read_only))
    };
    let (_, (level, read_only)) = Users::change(&file, change).map_err(|fault| match fault {
        Fault::Set(why) => message(why),
        Fault::File(error) => failed(error),
    })?;
    complain(format!(
        "{name} has this password now, right level {level}{}",
        if read_only { ", read only" } else { "" }
    ));
    Ok(())
}

enum Fault {
    Set(String),
    File(UsersError),
}

impl From<UsersError> for Fault {
    fn from(error: UsersError) -> Self {
        Self::File(error)
    }
}

fn failed(error: UsersError) -> Failure {
    Failure::Message(error.to_string())
}

fn message(text: String) -> Failure {
    Failure::Message(text)
}

fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().take(MOST_BYTES).read_line(&mut line);
    read.map_err(|error| message(format!("the password cannot be read: {error}")))?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    if line.is_empty() { Err(message("there is no password on standard input".to_owned())) } else { Ok(line) }
}

/// Asks twice, without showing what is typed.
fn from_terminal(name: &str) -> Result<String, Failure> {
    let no_terminal = |error| message(format!("there is no terminal to ask on ({error}); give it with --stdin"));
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal)?;
    let quiet = Quiet::begin(&terminal).map_err(no_terminal)?;
    let ask = |question: &str| -> Result<String, Failure> {
        (&terminal).write_all(question.as_bytes())?;
        let answer = line(&terminal);
        (&terminal).write_all(b"\n")?;
        answer?.ok_or_else(|| message("nothing was changed".to_owned()))
    };
    let first = ask(&format!("New password of {name} (at least {} characters): ", multus_users::SHORTEST))?;
    let second = ask("Once more: ")?;
    drop(quiet);
    if first == second { Ok(first) } else { Err(message("the two are not the same; nothing was changed".to_owned())) }
}

/// A line, read key by key; `None` when it was broken off.
fn line(mut terminal: &File) -> io::Result<Option<String>> {
    let mut typed = Vec::new();
    let mut key = [0];
    loop {
        match terminal.read(&mut key) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => match (read?, key[0]) {
                (0, _) | (_, CTRL_C | CTRL_D) => return Ok(None),
                (_, b'\r' | b'\n') => break,
                (_, BACKSPACE | DELETE) => {
                    // A character of UTF-8 goes as a whole.
                    while typed.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {}
                }
                (_, CTRL_U) => typed.clear(),
                (_, byte) if typed.len() < MOST_BYTES as usize => typed.push(byte),
                _ => {}
            },
        }
    }
    String::from_utf8(typed).map(Some).map_err(|_| io::Error::other("what was typed is not UTF-8"))
}

/// The terminal shows nothing and hands over every key, Ctrl-C too, so that it is always given back as it was.
struct Quiet<'a>(&'a File, Termios);

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a File) -> io::Result<Quiet<'a>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Quiet(terminal, before))
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0, SetArg::TCSAFLUSH, &self.1);
    }
}

const MOST_BYTES: u64 = 1024;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;
