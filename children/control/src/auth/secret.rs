//! Random texts that nobody can guess, and how they are compared and kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What is kept of a secret: enough to know it again, not enough to use it.
pub(crate) type Key = [u8; 32];

/// 256 random bits as text: 43 letters, digits, `-` and `_`.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn random() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A code that a person copies by hand: 8 letters and digits (40 bits), none of which looks like another.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn code() -> std::io::Result<String> {
    let mut bytes = [0; CODE_LETTERS];
    fill(&mut bytes)?;
    // 256 is a multiple of 32: every letter is equally likely.
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// A code as it was meant: case, blanks and dashes do not matter.
pub(crate) fn plain_code(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect()
}

pub(crate) fn key(secret: &str) -> Key {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    key(a).ct_eq(&key(b)).into()
}

fn fill(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(|error| std::io::Error::other(format!("no random numbers: {error}")))
}

const CODE_LETTERS: usize = 8;
/// Without I, L, O and U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_promised_size_and_differ() {
        let (a, b) = (random().expect("random numbers"), random().expect("random numbers"));
        assert_eq!(a.len(), 43);
        assert!(a.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert!(!same(&a, &b) && same(&a, &a.clone()));
        let code = code().expect("random numbers");
        assert_eq!(code.len(), 8);
        assert_eq!(plain_code(&format!(" {}-{} ", code[..4].to_lowercase(), &code[4..])), code);
    }
}
