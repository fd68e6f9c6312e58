//! The code for the first set-up: there is one exactly while there is no user.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::secret;

/// The code, if there is one.
#[derive(Debug, Default)]
pub(crate) struct SetUp {
    code: Option<Code>,
}

#[derive(Debug)]
struct Code {
    text: String,
    wrong: u32,
    file: Option<PathBuf>,
}

impl SetUp {
    /// Makes a code when one is needed, and forgets it when it is not.
    ///
    /// It is written to the log. `hidden`: others than the owner of the machine can read that log (there are tokens), so
    /// it is written to a file in `runtime_dir` that only this user and root can read.
    pub(crate) fn tend(&mut self, open: bool, hidden: bool, runtime_dir: &Path) {
        let used_up = self.code.as_ref().is_some_and(|code| code.wrong >= MOST_WRONG);
        // Whoever can read the log by now knows a code that stands in it.
        let told = hidden && self.code.as_ref().is_some_and(|code| code.file.is_none());
        if !open || used_up || told {
            self.forget();
        }
        if open && self.code.is_none() {
            match publish(hidden, runtime_dir) {
                Ok(code) => self.code = Some(code),
                Err(error) => log::error!("no code for the first set-up: {error}; use \"multusctl passwd NAME\""),
            }
        }
    }

    /// Whether `typed` is the code. Too many wrong ones make it worthless.
    pub(crate) fn is_code(&mut self, typed: &str) -> bool {
        let Some(code) = &mut self.code else { return false };
        let fits = code.wrong < MOST_WRONG && secret::same(&code.text, &secret::plain_code(typed));
        code.wrong += u32::from(!fits);
        fits
    }

    fn forget(&mut self) {
        if let Some(Code { file: Some(file), .. }) = self.code.take() {
            // What is left there is worth nothing.
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for SetUp {
    fn drop(&mut self) {
        self.forget();
    }
}

fn publish(hidden: bool, runtime_dir: &Path) -> io::Result<Code> {
    let text = secret::code()?;
    let (front, back) = text.split_at(text.len() / 2);
    let mut file = None;
    if hidden {
        let path = runtime_dir.join("setup-code");
        write(&path, &format!("{front}-{back}\n"))?;
        log::warn!("there is no user yet; the code for the first set-up is in {}", path.display());
        file = Some(path);
    } else {
        log::warn!("there is no user yet; the code for the first set-up is {front}-{back}");
    }
    Ok(Code { text, wrong: 0, file })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// After so many wrong tries there is another code. 40 bits leave no hope, and the throttle makes it slow.
const MOST_WRONG: u32 = 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_code_is_there_while_it_is_needed_and_stands_some_wrong_tries() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let file = temp.path().join("setup-code");
        let mut set_up = SetUp::default();
        assert!(!set_up.is_code(""));
        set_up.tend(true, true, temp.path());
        let code = fs::read_to_string(&file).expect("it was written");
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        for _ in 0..9 {
            assert!(!set_up.is_code("AAAA-AAAA"));
        }
        assert!(set_up.is_code(&code) && set_up.is_code(&code.to_lowercase()));
        assert!(!set_up.is_code(""));
        assert!(!set_up.is_code(&code), "ten wrong tries");
        set_up.tend(true, true, temp.path());
        let another = fs::read_to_string(&file).expect("it was written");
        assert!(another != code && set_up.is_code(&another) && !set_up.is_code(&code));
        set_up.tend(false, true, temp.path());
        assert!(!set_up.is_code(&another) && !file.exists());
        set_up.tend(true, false, temp.path());
        assert!(!file.exists(), "it is in the log");
        let in_log = set_up.code.as_ref().expect("it is open").text.clone();
        set_up.tend(true, true, temp.path());
        assert!(!set_up.is_code(&in_log), "others can read the log now");
        assert!(set_up.is_code(&fs::read_to_string(&file).expect("there is another one")));
    }
}
