//! "Read Device Identification", function 43/14 (section 6.21 of the specification). Pure.

use crate::pdu::{ENCAPSULATED, Exception, IDENTIFICATION, LONGEST};

/// Regular identification, by stream and by single object.
const CONFORMITY: u8 = 0x82;
/// The objects of basic identification: vendor, product code, revision.
const BASIC: u8 = 3;
/// Reads one object instead of a stream.
const SINGLE: u8 = 4;
/// Function, MEI type, code, conformity, more, next object, number of objects.
const HEADER: usize = 7;
/// Longest text of an object: it fits into one answer, whatever the header says.
pub(crate) const LONGEST_TEXT: usize = 200;

/// The texts, object 0 first: vendor, product code, revision, URL, product name, model, application.
#[derive(Clone, Debug)]
pub(crate) struct Identity(pub(crate) [String; 7]);

impl Identity {
    /// The answer to a request that was decoded. A stream that does not fit goes on in the next one.
    ///
    /// # Errors
    /// A single object that is not there.
    pub(crate) fn answer(&self, code: u8, object: u8, out: &mut Vec<u8>) -> Result<(), Exception> {
        if code == SINGLE {
            let text = self.0.get(usize::from(object)).ok_or(Exception::IllegalAddress)?;
            out.extend_from_slice(&[ENCAPSULATED, IDENTIFICATION, code, CONFORMITY, 0, 0, 1]);
            put(object, text, out);
            return Ok(());
        }
        let end = if code == 1 { BASIC } else { self.0.len() as u8 };
        // An object that is not there means the beginning.
        let first = if object < end { object } else { 0 };
        let begin = out.len();
        out.extend_from_slice(&[ENCAPSULATED, IDENTIFICATION, code, CONFORMITY, 0, 0, 0]);
        for id in first..end {
            let text = &self.0[usize::from(id)];
            if out.len() - begin + 2 + text.len() > LONGEST {
                (out[begin + 4], out[begin + 5]) = (0xff, id);
                break;
            }
            put(id, text, out);
            out[begin + HEADER - 1] += 1;
        }
        Ok(())
    }
}

fn put(id: u8, text: &str, out: &mut Vec<u8>) {
    // No text is longer than LONGEST_TEXT.
    out.extend_from_slice(&[id, text.len() as u8]);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(texts: [&str; 7]) -> Identity {
        Identity(texts.map(str::to_owned))
    }

    fn asked(identity: &Identity, code: u8, object: u8) -> Result<Vec<u8>, Exception> {
        let mut out = vec![];
        identity.answer(code, object, &mut out).map(|()| out)
    }

    #[test]
    fn objects_come_by_stream_and_one_by_one() {
        let identity = identity(["V", "P", "1.0", "U", "N", "M", "A"]);
        let basic = [43, 14, 1, 0x82, 0, 0, 3, 0, 1, b'V', 1, 1, b'P', 2, 3, b'1', b'.', b'0'];
        assert_eq!(asked(&identity, 1, 0), Ok(basic.to_vec()));
        assert_eq!(asked(&identity, 1, 6), Ok(basic.to_vec()), "no basic object: from the beginning");
        assert_eq!(asked(&identity, 2, 5), Ok(vec![43, 14, 2, 0x82, 0, 0, 2, 5, 1, b'M', 6, 1, b'A']));
        assert_eq!(asked(&identity, 3, 0x80).map(|answer| answer[6]), Ok(7));
        assert_eq!(asked(&identity, 4, 4), Ok(vec![43, 14, 4, 0x82, 0, 0, 1, 4, 1, b'N']));
        assert_eq!(asked(&identity, 4, 7), Err(Exception::IllegalAddress));
    }

    #[test]
    fn a_stream_that_is_too_long_goes_on() {
        let long = "x".repeat(LONGEST_TEXT);
        let identity = identity(["V", &long, &long, "U", "N", "M", "A"]);
        let (mut object, mut seen) = (0, vec![]);
        for _ in 0..7 {
            let answer = asked(&identity, 3, object).expect("a stream");
            assert!(answer.len() <= LONGEST);
            let mut at = HEADER;
            for _ in 0..answer[6] {
                seen.push(answer[at]);
                at += 2 + usize::from(answer[at + 1]);
            }
            assert_eq!(at, answer.len());
            if answer[4] == 0 {
                break;
            }
            object = answer[5];
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
    }
}
