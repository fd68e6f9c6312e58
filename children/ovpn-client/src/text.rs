//! Whether a configuration of openvpn may be used: read as openvpn reads it (openvpn(8), "INLINE FILE SUPPORT" and `--config`),
//! and looked through for what it must not say.

/// What was found in a good one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The certificate of this device.
    pub certificate: Option<Source>,
    /// Whether it says itself what comes after a failed authentication.
    pub has_auth_retry: bool,
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
const OWN: [&str; 12] = [
    "cd",
    "chroot",
    "config",
    "daemon",
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

/// Those with a file as their first argument.
const FILES: [&str; 10] =
    ["auth-user-pass", "ca", "cert", "crl-verify", "key", "pkcs12", "secret", "tls-auth", "tls-crypt", "tls-crypt-v2"];

/// Looks through a text. `is_there` says whether a file that it names can be read.
///
/// # Errors
/// All that is wrong, each with its line.
pub fn check(text: &str, allow_scripts: bool, is_there: impl Fn(&str) -> bool) -> Result<Found, Vec<String>> {
    let mut wrong = Vec::new();
    let mut found = Found::default();
    let mut has_remote = false;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let words = match words(line) {
            Ok(words) => words,
            Err(reason) => {
                wrong.push(format!("line {number}: {reason}"));
                continue;
            }
        };
        let Some(first) = words.first() else { continue };
        let directive = first.strip_prefix("--").unwrap_or(first);
        let argument = words.get(1).map(String::as_str);
        if let Some(tag) = directive.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            // What stands between the tags of a connection are directives as well: they are looked at like all others.
            if matches!(tag, "connection" | "/connection") {
                continue;
            }
            let end = format!("</{tag}>");
            let mut inner = String::new();
            let is_closed = lines.by_ref().map(|(_, line)| line).any(|line| {
                let is_end = line.trim_start().starts_with(&end);
                if !is_end {
                    inner.push_str(line);
                    inner.push('\n');
                }
                is_end
            });
            if !is_closed {
                wrong.push(format!("line {number}: <{tag}> is never closed by {end}"));
            }
            if RUNS.contains(&tag) || OWN.contains(&tag) {
                wrong.push(format!("line {number}: <{tag}> is refused"));
            }
            if tag == "cert" {
                found.certificate = Some(Source::Inline(inner));
            }
            continue;
        }
        match directive {
            "remote" => has_remote = true,
            "auth-retry" => found.has_auth_retry = true,
            "cert" => found.certificate = argument.map(|file| Source::File(file.to_owned())),
            _ => {}
        }
        if OWN.contains(&directive) || directive.starts_with("management") {
            wrong.push(format!("line {number}: {directive} is refused: that is up to multus-ovpn-client"));
        } else if RUNS.contains(&directive) && !allow_scripts && !is_harmless(directive, argument) {
            wrong.push(format!(
                "line {number}: {directive} is refused: it has openvpn run a program; allow_scripts = true allows it"
            ));
        } else if let (true, Some(file)) = (FILES.contains(&directive), argument)
            && file != "[inline]"
            && !is_there(file)
        {
            wrong.push(format!("line {number}: {directive}: {file} cannot be read"));
        }
    }
    if !has_remote {
        wrong.push("no server is named: remote is missing".to_owned());
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}

/// Levels 0 and 1 run no scripts of a user.
fn is_harmless(directive: &str, argument: Option<&str>) -> bool {
    directive == "script-security" && matches!(argument, Some("0" | "1"))
}

/// The words of a line, as `parse_line` of openvpn takes them: blanks between them, quotes of both kinds, a backslash before a
/// letter outside of single quotes, `#` and `;` begin a comment where a word could begin.
fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut letters = line.trim_start_matches('\u{feff}').chars().peekable();
    loop {
        while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
        let mut word = String::new();
        match letters.peek() {
            None | Some('#' | ';') => return Ok(words),
            Some(&quote @ ('"' | '\'')) => {
                letters.next();
                loop {
                    match letters.next() {
                        None => return Err("a quotation mark is never closed"),
                        Some(letter) if letter == quote => break,
                        Some('\\') if quote == '"' => word.extend(letters.next()),
                        Some(letter) => word.push(letter),
                    }
                }
            }
            Some(_) => {
                while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
                    if letter == '\\' { word.extend(letters.next()) } else { word.push(letter) }
                }
            }
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Result<Found, String> {
        check(text, false, |file| file != "missing.pem").map_err(|wrong| wrong.join("\n"))
    }

    #[test]
    fn a_usual_client_is_good_and_its_certificate_is_found() {
        let text = "client # a comment\nremote vpn.example.org 1194\n; nothing\ndev tun\nscript-security 1\n\
                    ca \"ca file.pem\"\n<cert>\nup is text here\n</cert>\n<connection>\nremote b 1194\n</connection>\n";
        let certificate = Some(Source::Inline("up is text here\n".into()));
        assert_eq!(judge(text), Ok(Found { certificate, has_auth_retry: false }));
        let found = judge("remote a\ncert me.pem\nauth-retry none").expect("good");
        assert_eq!(found, Found { certificate: Some(Source::File("me.pem".into())), has_auth_retry: true });
    }

    #[test]
    fn what_runs_programs_is_refused_however_it_is_written() {
        for line in [
            "up /bin/x",
            "--up /bin/x",
            "  \tup /bin/x",
            "\"up\" /bin/x",
            "'up' /bin/x",
            "\\up /bin/x",
            "u\\p /bin/x",
            "\u{feff}up /bin/x",
            "script-security 2",
            "script-security \"3\"",
            "script-security",
            "plugin /lib/x.so",
            "<connection>\nup /bin/x\n</connection>",
            "<up>\n</up>",
            "tls-verify x",
            "iproute x",
        ] {
            let refused = judge(&format!("remote a\n{line}\n")).expect_err(line);
            assert!(refused.starts_with("line ") && refused.contains("is refused"), "{line}: {refused}");
        }
        assert!(check("remote a\nup /bin/x\nscript-security 2\n", true, |_| true).is_ok(), "where it is allowed");
    }

    #[test]
    fn other_mistakes_are_told_with_their_line() {
        for (text, expected) in [
            ("dev tun", "no server is named"),
            ("remote a\nmanagement 127.0.0.1 7505", "line 2: management is refused"),
            ("remote a\nmanagement-hold", "line 2: management-hold is refused"),
            ("remote a\ndaemon", "line 2: daemon is refused"),
            ("remote a\nconfig other", "line 2: config is refused"),
            ("remote a\n<cert>\nx", "line 2: <cert> is never closed by </cert>"),
            ("remote a\nca missing.pem", "line 2: ca: missing.pem cannot be read"),
            ("remote \"a", "line 1: a quotation mark is never closed"),
        ] {
            let wrong = check(text, true, |file| file != "missing.pem").expect_err(text).join("\n");
            assert!(wrong.contains(expected), "{text}: {wrong}");
        }
        for soup in ["<", ">", "<>", "</>", "\\", "'", "<a>\n</b>", "\0", "--"] {
            let _ = judge(soup);
        }
    }
}
