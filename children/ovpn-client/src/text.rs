//! Whether a configuration of openvpn may be used: read as openvpn 2.6 reads it (`read_config_file`, `parse_line` and
//! `check_inline_file` of its options.c), and looked through for what it must not say. What is read otherwise here than there
//! would be a way around every refusal, so where the two might differ the text is refused.

/// What was found in a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The certificate of this device.
    pub certificate: Option<Source>,
    /// Whether it says itself what comes after a failed authentication.
    pub has_auth_retry: bool,
    /// Whether a key or a password stands in the text itself.
    pub has_secret: bool,
    /// Files with a key or a password, as they are written.
    pub secret_files: Vec<String>,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration.
    Inline(String),
    /// In a file, as it is written.
    File(String),
}

/// What this child tells openvpn itself, or what would take openvpn out of its sight.
const OWN: [&str; 13] = [
    "cd",
    "chroot",
    "config",
    "daemon",
    "genkey",
    "inetd",
    "log",
    "log-append",
    "mktun",
    "rmtun",
    "server",
    "syslog",
    "writepid",
];

/// What has openvpn run or load something.
const RUNS: [&str; 20] = [
    "auth-user-pass-verify",
    "client-connect",
    "client-crresponse",
    "client-disconnect",
    "dns-updown",
    "down",
    "engine",
    "ipchange",
    "iproute",
    "learn-address",
    "pkcs11-providers",
    "plugin",
    "providers",
    "route-pre-down",
    "route-up",
    "script-security",
    "tls-crypt-v2-verify",
    "tls-export-cert",
    "tls-verify",
    "up",
];

/// What has openvpn write to a file that its first argument names.
const WRITES: [&str; 5] = ["ifconfig-pool-persist", "memstats", "replay-persist", "status", "tmp-dir"];

/// Variables that change what programs load and which ones are found, beside all that begin with `LD_` or `OPENSSL_`.
const VARIABLES: [&str; 6] = ["BASH_ENV", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "IFS", "PATH"];

/// Those with a file as their first argument that holds no secret.
const FILES: [&str; 4] = ["ca", "cert", "crl-verify", "extra-certs"];

/// Those with a key or a password, in the text or in a file as their first argument.
const SECRETS: [&str; 9] = [
    "askpass",
    "auth-user-pass",
    "http-proxy-user-pass",
    "key",
    "pkcs12",
    "secret",
    "tls-auth",
    "tls-crypt",
    "tls-crypt-v2",
];

/// openvpn takes a longer line for two, or refuses it.
const LONGEST_LINE_BYTES: usize = 255;

/// Looks through a text. `is_there` says whether a file that it names can be read.
///
/// # Errors
/// All that is wrong, each with its line.
pub fn check(text: &str, allow_scripts: bool, is_there: impl Fn(&str) -> bool) -> Result<Found, Vec<String>> {
    // To openvpn a line would end there.
    if text.contains('\0') {
        return Err(vec!["it is no text: it has a byte of 0 in it".to_owned()]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<(usize, &str)> = (1..).zip(text.split('\n')).collect();
    let mut reader =
        Reader { allow_scripts, is_there: &is_there, found: Found::default(), has_remote: false, wrong: Vec::new() };
    reader.read(&lines);
    if !reader.has_remote {
        reader.wrong.push("no server is named: remote is missing".to_owned());
    }
    if reader.wrong.is_empty() { Ok(reader.found) } else { Err(reader.wrong) }
}

struct Reader<'a> {
    allow_scripts: bool,
    is_there: &'a dyn Fn(&str) -> bool,
    found: Found,
    has_remote: bool,
    wrong: Vec<String>,
}

impl Reader<'_> {
    fn read<'t>(&mut self, mut lines: &'t [(usize, &'t str)]) {
        while let Some((&(number, line), rest)) = lines.split_first() {
            lines = rest;
            if line.len() > LONGEST_LINE_BYTES {
                self.wrong.push(format!("line {number}: it is longer than {LONGEST_LINE_BYTES} bytes"));
                continue;
            }
            let words = match words(line) {
                Ok(words) => words,
                Err(reason) => {
                    self.wrong.push(format!("line {number}: {reason}"));
                    continue;
                }
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match &words[..] {
                [] => {}
                [word] if tag(word).is_some() => lines = self.inline(number, tag(word).unwrap_or_default(), lines),
                // An option that need not be known; it is the option itself that counts.
                ["setenv" | "--setenv", "opt", option @ ..] => self.option(number, option),
                option => self.option(number, option),
            }
        }
    }

    /// What stands between two tags, the first of which was on line `number`; what is behind them.
    fn inline<'t>(&mut self, number: usize, tag: &str, lines: &'t [(usize, &'t str)]) -> &'t [(usize, &'t str)] {
        let end = format!("</{tag}>");
        let Some(length) = lines.iter().position(|(_, line)| line.trim_start_matches(is_space).starts_with(&end))
        else {
            self.wrong.push(format!("line {number}: <{tag}> is never closed by {end}"));
            return &[];
        };
        let (inner, rest) = lines.split_at(length);
        // openvpn takes a long line in parts, and looks at the beginning of each.
        if let Some((number, _)) = inner.iter().find(|(_, line)| line.contains(&end)) {
            self.wrong.push(format!("line {number}: {end} stands in the middle of it"));
        }
        if RUNS.contains(&tag) || OWN.contains(&tag) || WRITES.contains(&tag) || tag.starts_with("management") {
            self.wrong.push(format!("line {number}: <{tag}> is refused"));
        }
        match tag {
            // What stands between the tags of a connection are options as well.
            "connection" => self.read(inner),
            "cert" => {
                let lines: String = inner.iter().map(|(_, line)| format!("{line}\n")).collect();
                self.found.certificate = Some(Source::Inline(lines));
            }
            _ => self.found.has_secret |= SECRETS.contains(&tag),
        }
        rest.get(1..).unwrap_or_default()
    }

    fn option(&mut self, number: usize, words: &[&str]) {
        let Some(first) = words.first() else { return };
        let option = first.strip_prefix("--").unwrap_or(first);
        let argument = words.get(1).copied();
        match option {
            "remote" => self.has_remote = true,
            "auth-retry" => self.found.has_auth_retry = true,
            "cert" => self.found.certificate = argument.map(|file| Source::File(file.to_owned())),
            _ => {}
        }
        if let Some(reason) = self.refused(option, argument) {
            return self.wrong.push(format!("line {number}: {option} is refused: {reason}"));
        }
        let is_secret = SECRETS.contains(&option);
        let Some(file) = argument.filter(|file| (is_secret || FILES.contains(&option)) && *file != "[inline]") else {
            return;
        };
        if !(self.is_there)(file) {
            self.wrong.push(format!("line {number}: {option}: {file} cannot be read"));
        }
        if is_secret {
            self.found.secret_files.push(file.to_owned());
        }
    }

    /// Why an option must not be there, if it must not.
    fn refused(&self, option: &str, argument: Option<&str>) -> Option<&'static str> {
        if OWN.contains(&option) || option.starts_with("management") {
            return Some("that is up to multus-ovpn-client");
        }
        if self.allow_scripts {
            return None;
        }
        if RUNS.contains(&option) && !is_harmless(option, argument) {
            return Some("it has openvpn run a program; allow_scripts = true allows it");
        }
        if option == "setenv" && argument.is_some_and(is_mighty) {
            return Some("this variable decides what programs do; allow_scripts = true allows it");
        }
        if WRITES.contains(&option) && argument.is_some_and(|file| file.starts_with('/') || file.contains("..")) {
            return Some("openvpn would write outside of the folder of this text; allow_scripts = true allows it");
        }
        None
    }
}

/// Levels 0 and 1 run no scripts of a user.
fn is_harmless(option: &str, argument: Option<&str>) -> bool {
    option == "script-security" && matches!(argument, Some("0" | "1"))
}

fn is_mighty(variable: &str) -> bool {
    variable.starts_with("LD_") || variable.starts_with("OPENSSL_") || VARIABLES.contains(&variable)
}

/// The name in `<name>`, which is one where it is the only word of a line.
fn tag(word: &str) -> Option<&str> {
    // Of two dashes alone there is nothing to strip.
    let word = word.strip_prefix("--").filter(|rest| !rest.is_empty()).unwrap_or(word);
    word.strip_prefix('<')?.strip_suffix('>')
}

/// As isspace(3) has it.
fn is_space(letter: char) -> bool {
    matches!(letter, ' ' | '\t'..='\r')
}

/// Where a line is read at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between two words.
    Gap,
    /// In a word without quotes.
    Word,
    /// In a word between these quotes.
    Quotes(char),
}

/// The words of a line: blanks between them, quotes of both kinds around a whole word, a backslash before a blank, a quotation
/// mark or a backslash outside of single quotes; `#` and `;` begin a comment where a word could begin.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut at, mut is_escaped) = (At::Gap, false);
    for letter in line.chars() {
        if letter == '\\' && !is_escaped && at != At::Quotes('\'') {
            is_escaped = true;
            continue;
        }
        let before = at;
        at = match at {
            // A backslash before a blank that belongs to no word does nothing.
            At::Gap if is_space(letter) => At::Gap,
            At::Gap if matches!(letter, '#' | ';') => return Ok(words),
            At::Gap if matches!(letter, '"' | '\'') && !is_escaped => At::Quotes(letter),
            At::Word if is_space(letter) && !is_escaped => At::Gap,
            At::Quotes(quote) if letter == quote && !is_escaped => At::Gap,
            At::Gap | At::Word => At::Word,
            quotes => quotes,
        };
        let is_part = at != At::Gap && (before == at || at == At::Word);
        if is_part {
            if is_escaped && !(matches!(letter, '\\' | '"') || is_space(letter)) {
                return Err("a backslash stands before a letter that needs none");
            }
            word.push(letter);
        } else if before != At::Gap {
            words.push(std::mem::take(&mut word));
        }
        is_escaped = false;
    }
    match at {
        At::Gap => {}
        At::Word if is_escaped => return Err("a backslash stands at its end"),
        At::Word => words.push(word),
        At::Quotes(_) => return Err("a quotation mark is never closed"),
    }
    Ok(words)
}

#[cfg(test)]
mod tests;
