//! Where a program named in a configuration is found.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds `program`: an absolute path as it is, a bare name beside the running executable and then in `PATH`.
///
/// Reads the file system only; whether the child's user may execute the file shows when it is started.
///
/// # Errors
/// Why it cannot be started as it is now. It may be there later, so callers should ask again.
pub fn find_program(program: &str) -> Result<PathBuf, ProgramError> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let places: Vec<PathBuf> = beside.into_iter().chain(std::env::split_paths(&path)).collect();
    find_program_in(program, &places)
}

/// As [`find_program`], searching bare names in `places`.
///
/// # Errors
/// As [`find_program`].
pub fn find_program_in(program: &str, places: &[PathBuf]) -> Result<PathBuf, ProgramError> {
    if program.starts_with('/') {
        return executable(Path::new(program)).map(|()| program.into());
    }
    if program.contains('/') {
        return Err(ProgramError::Relative { program: program.to_owned() });
    }
    let mut refused = None;
    for place in places.iter().filter(|place| place.is_absolute()) {
        let path = place.join(program);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(ProgramError::Missing { .. }) => {}
            Err(other) => refused = refused.or(Some(other)),
        }
    }
    Err(refused.unwrap_or_else(|| ProgramError::NotFound { program: program.to_owned() }))
}

/// Why a program cannot be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProgramError {
    /// A path that depends on a current directory.
    Relative { program: String },
    /// A bare name that is neither beside the running executable nor in `PATH`.
    NotFound { program: String },
    /// No such file.
    Missing { path: PathBuf },
    /// A directory, a device.
    NotAFile { path: PathBuf },
    /// No execute permission for anybody.
    NotExecutable { path: PathBuf },
    /// The system would not say.
    Unreadable { path: PathBuf, source: io::Error },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative { program } => {
                write!(f, "{program}: a relative path; write an absolute path or a bare program name")
            }
            Self::NotFound { program } => write!(f, "{program}: found neither beside multusd nor in PATH"),
            Self::Missing { path } => write!(f, "{}: no such file", path.display()),
            Self::NotAFile { path } => write!(f, "{}: not a file", path.display()),
            Self::NotExecutable { path } => write!(f, "{}: not executable (chmod +x)", path.display()),
            Self::Unreadable { path, source } => write!(f, "{}: {}", path.display(), super::io_words(source)),
        }
    }
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn executable(path: &Path) -> Result<(), ProgramError> {
    let path_buf = || path.to_path_buf();
    match path.metadata() {
        Ok(data) if !data.is_file() => Err(ProgramError::NotAFile { path: path_buf() }),
        Ok(data) if data.permissions().mode() & 0o111 == 0 => Err(ProgramError::NotExecutable { path: path_buf() }),
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(ProgramError::Missing { path: path_buf() })
        }
        Err(source) => Err(ProgramError::Unreadable { path: path_buf(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_is_found_or_the_reason_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("good"), "").expect("writable");
        fs::set_permissions(path("good"), fs::Permissions::from_mode(0o755)).expect("own file");
        fs::write(path("plain"), "").expect("writable");
        fs::set_permissions(path("plain"), fs::Permissions::from_mode(0o644)).expect("own file");
        let places = [PathBuf::from("relative"), path("absent"), dir.path().to_path_buf()];

        assert_eq!(find_program_in("good", &places).expect("is there"), path("good"));
        for (program, reason) in [
            ("plain".to_owned(), "not executable"),
            ("nothing".to_owned(), "neither beside"),
            ("./good".to_owned(), "relative path"),
            (path("nothing").display().to_string(), "no such file"),
            (path("plain/under").display().to_string(), "no such file"),
            (dir.path().display().to_string(), "not a file"),
        ] {
            let error = find_program_in(&program, &places).expect_err(&program).to_string();
            assert!(error.contains(reason), "{program}: {error}");
        }
    }
}
