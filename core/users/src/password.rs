//! Passwords: which are good enough, and their hashes.

use std::fmt;
use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};

/// The fewest characters of a password.
///
/// Log-ins are slowed down to one in five minutes, some hundred thousand in a year: ten characters that are not a
/// common word withstand that with a wide margin, and a stolen file for as long as each try costs 19 MiB and two passes.
pub const SHORTEST: usize = 10;

/// Why `password` cannot be the password of `user`; `None`: it can.
pub fn password_fault(user: &str, password: &str) -> Option<String> {
    let characters = password.chars().count();
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    if characters < SHORTEST {
        Some(format!("too short: at least {SHORTEST} characters are needed"))
    } else if password.len() > LONGEST_BYTES {
        Some(format!("too long: at most {LONGEST_BYTES} bytes are possible"))
    } else if password.contains(['\0', '\n', '\r']) {
        Some("it must not contain ends of lines".to_owned())
    } else if password.to_lowercase().replace(&user.to_lowercase(), "").chars().count() < FEWEST_OTHERS {
        Some("it is little more than the name of the user".to_owned())
    } else if different.len() < FEWEST_DIFFERENT {
        Some(format!("too simple: at least {FEWEST_DIFFERENT} different characters are needed"))
    } else {
        None
    }
}

/// The argon2id hash of a password, as text in the PHC format.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    /// Hashes a password with a random salt. Takes 19 MiB and some ten milliseconds.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn of(password: &str) -> Result<Self, String> {
        let hash = hasher().hash_password(password.as_bytes()).map_err(|error| format!("no hash: {error}"))?;
        Ok(Self(hash.to_string()))
    }

    /// Reads one as it stands in a file.
    ///
    /// # Errors
    /// It is no argon2id hash, or checking it would take more than [`MOST_MEMORY_KIB`] or [`MOST_PASSES`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let hash = PasswordHash::new(text).map_err(|_| "not a hash in the PHC format".to_owned())?;
        let params = Params::try_from(&hash).map_err(|_| "unknown parameters of argon2".to_owned())?;
        if hash.algorithm.as_str() != "argon2id" || hash.hash.is_none() || hash.salt.is_none() {
            return Err("not an argon2id hash".to_owned());
        }
        if params.m_cost() > MOST_MEMORY_KIB || params.t_cost() > MOST_PASSES || params.p_cost() > MOST_LANES {
            return Err(format!(
                "too expensive: at most m={MOST_MEMORY_KIB}, t={MOST_PASSES} and p={MOST_LANES} are taken"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `password` is the one. Takes as long for a wrong one as for the right one.
    pub fn fits(&self, password: &str) -> bool {
        // What is longer than any password can be is not worth the time.
        password.len() <= LONGEST_BYTES
            && PasswordHash::new(&self.0).is_ok_and(|hash| hasher().verify_password(password.as_bytes(), &hash).is_ok())
    }

    /// Does the work of [`Hash::fits`] for a user who does not exist, so that the time tells nobody who does.
    pub fn pretend(password: &str) {
        static NOBODY: LazyLock<Option<Hash>> = LazyLock::new(|| Hash::of("the password of nobody").ok());
        if let Some(hash) = &*NOBODY {
            hash.fits(password);
        }
    }

    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(..)")
    }
}

/// The second choice of RFC 9106 scaled to small machines, as OWASP recommends it: 19 MiB, two passes, one lane.
fn hasher() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

const LONGEST_BYTES: usize = 256;
const FEWEST_DIFFERENT: usize = 4;
/// Characters beside the name of the user.
const FEWEST_OTHERS: usize = 6;
/// A file must not be able to take the memory of the machine at each log-in.
const MOST_MEMORY_KIB: u32 = 64 * 1024;
const MOST_PASSES: u32 = 10;
const MOST_LANES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_that_are_documented() {
        let hash = Hash::of("a good long password").expect("random numbers");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        assert!(hash.fits("a good long password") && !hash.fits("a good long passwort") && !hash.fits(""));
        assert!(!hash.fits(&"x".repeat(100_000)));
        assert_eq!(Hash::parse(hash.as_str()), Ok(hash.clone()));
        assert_ne!(Hash::of("a good long password").expect("random numbers"), hash, "each has its own salt");
        assert!(!format!("{hash:?}").contains('$'));
    }

    #[test]
    fn a_hash_that_cannot_be_checked_is_refused() {
        let good = Hash::of("a good long password").expect("random numbers");
        for bad in [
            "",
            "secret",
            "$1$abc$def",
            "$argon2id$v=19$m=19456,t=2,p=1",
            &good.as_str().replace("argon2id", "argon2i"),
            &good.as_str().replace("m=19456", "m=4194304"),
            &good.as_str().replace("t=2", "t=4000000"),
        ] {
            assert!(Hash::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_that_are_too_easy_are_refused() {
        for (password, good) in [
            ("", false),
            ("123456789", false),
            ("1111111111", false),
            ("ababababab", false),
            ("admin-ADMIN", false),
            ("Admin12345", false),
            ("admin has a horse", true),
            ("pumphouse three", true),
            ("äöüß€ 1234", true),
            ("with\na second line", false),
        ] {
            assert_eq!(password_fault("admin", password).is_none(), good, "{password}");
        }
        assert!(password_fault("admin", &"abcdefgh".repeat(33)).is_some());
    }
}
